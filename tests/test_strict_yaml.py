"""YAML is read as PyYAML reads it, except for what that takes silently or fails on."""

from pathlib import Path

import pytest
import yaml

from landslide import strict_yaml

MERGED = """\
common: &common
  epochs: 3
  schedule: &schedule {kind: cosine}
  rates: [1.0e-3, 1e-3]
more: &more
  <<: *common
  epochs: 4
all:
  <<: [*more, *schedule]
  epochs: 5
again: *more
1: {a: 1}
"1": {a: 2}
"""


def test_anchors_and_merge_keys_are_read_as_pyyaml_reads_them():
    assert strict_yaml.load(MERGED, "here") == yaml.safe_load(MERGED)
    assert strict_yaml.load(MERGED, "here")["all"]["epochs"] == 5


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_are_read_as_pyyaml_reads_them(path):
    assert strict_yaml.load(path.read_text(), str(path)) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"the key 'a' occurs twice\s+in \"here\", line 3"),
        ("a:\n  - {b: 1, 'b': 2}", r"the key 'b' occurs twice\s+in \"here\", line 2"),
        ("a: &a {}\nb: &b {}\nc:\n  <<: *a\n  <<: *b", r"the key '<<' occurs twice\s+in \"here\", line 5"),
        ("a: &a {b: *a}", "the anchor 'a' holds itself"),
        ("a: &a\n- [1, *a]", r"the anchor 'a' holds itself\s+in \"here\", line 2"),
        ("a: 2026-02-30", r"day is out of range for month\s+in \"here\""),
        ("[" * 5000, r"nested too deeply\s+in \"here\""),
        ("a: [1", r"in \"here\", line 1"),
    ],
)
def test_what_is_ambiguous_or_wrong_is_refused_with_its_place(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        strict_yaml.load(text, "here")
