"""Options of the form KEY=VALUE."""

import click
import pytest

from landslide.cli.key_values import parse_key_values


def test_values_are_read_as_yaml():
    assert parse_key_values(["a.b=[1, x]", "c=a=b", "d="], "--set") == {"a.b": [1, "x"], "c": "a=b", "d": None}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "'a' is not KEY=VALUE"),
        (["a", "b=1", "=3"], "'a', '=3' is not KEY=VALUE"),
        (["a=1", "b=2", "a=3"], "'a' is given twice"),
        (["a={b: 1, b: 2}"], "the key 'b' occurs twice"),
    ],
)
def test_other_texts_are_refused(texts, message):
    with pytest.raises(click.BadParameter, match=message):
        parse_key_values(texts, "--set")
