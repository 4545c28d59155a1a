"""`landslide models list | compare | rollback` on a store with real versions."""

import json
import os
import pty
import re
import sys
import termios
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from landslide import cli
from landslide.data.demo import DEMO_VERSION
from landslide.errors import RegistryError
from landslide.metrics.counts import METRIC_NAMES
from landslide.schema import ORIGINAL_BANDS
from landslide.tracking import registry, reproduction, runs
from landslide.tracking.registry import Decision
from tests.support.versions import DATA_VERSION, add_version, fold_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Version 2 differs from 1 in settings and code, 3 from 2 in data and folds; 2 replaced 1 as champion."""
    folder = tmp_path_factory.mktemp("models")
    client = runs.connect(f"sqlite:///{folder / 'mlflow.db'}")
    settings = {"training": {"epochs": 3, "loss": "focal"}}
    add_version(client, folder, score=0.5, params=settings)
    add_version(client, folder, score=0.625, params={"training": {"epochs": 5, "loss": "focal"}}, git_commit="d" * 40)
    table = fold_table((1, 2, 2, 2, 1)).iloc[1:]
    add_version(client, folder, score=0.5, params=settings, table=table, data_version="b" * 32 + ".dir")
    registry.apply_decision(client, "1", Decision("champion", "the first registered model"))
    registry.apply_decision(client, "2", Decision("champion", "better"))
    registry.apply_decision(client, "3", Decision("challenger", "not comparable"))
    return client


def models(client, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli.main, ["models", *arguments], env={"MLFLOW_TRACKING_URI": client.tracking_uri}, catch_exceptions=False
    )


def test_list_shows_versions_aliases_and_scores(client):
    result = models(client, "list")
    assert result.exit_code == 0
    heading, first, second, third = result.stdout.splitlines()
    assert heading.split()[:3] == ["version", "aliases", "f1_macro"]
    assert first.split()[:3] == ["3", "challenger", "50.00"]
    assert second.split()[:3] == ["2", "champion", "62.50"]
    assert "dddddddd " in second
    assert "better" in second
    assert third.split()[0] == "1"


def test_reason_of_a_promotion_is_one_line_and_not_empty(client):
    for empty in ("", " \n\t"):
        refused = models(client, "promote", "3", "--reason", empty)
        assert refused.exit_code == 2
        assert "it is empty; say why" in refused.stderr
    assert models(client, "promote", "3", "--reason", "seen\nin\tthe\x1b[31m field").exit_code == 0
    lines = models(client, "list").stdout.splitlines()
    assert lines[1].endswith("promoted manually: seen in the [31m field")
    assert len(lines) == 4
    registry.rollback(client)


def test_an_address_of_mlflow_names_a_version(client):
    addresses = "models:/landslide-segmentation/1", "models:/landslide-segmentation@champion"
    found, expected = (models(client, "compare", *names) for names in (addresses, ("1", "2")))
    assert (found.exit_code, found.stdout) == (0, expected.stdout)
    other = models(client, "compare", "models:/other/1", "2")
    assert other.exit_code == 1
    assert "models:/other/1 is not a version of landslide-segmentation" in other.stderr
    assert "Give models:/landslide-segmentation/NUMBER" in other.stderr


def test_version_of_many_digits_is_missing(client):
    result = models(client, "promote", "9" * 19, "--reason", "why")
    assert result.exit_code == 1
    assert f"has no version {'9' * 19}." in result.stderr


def test_verification_against_what_is_no_store_is_refused(client):
    with pytest.raises(RegistryError, match=r"nonsense is not an address of an MLflow store(.|\n)*sqlite:////path"):
        reproduction.verify(client.tracking_uri, None, "nonsense")


def test_list_shows_a_rollback_and_whole_reasons(client):
    reason = "promoted manually: " + "a long story " * 12 + "with an end"
    registry.apply_decision(client, "3", Decision("champion", reason))
    registry.rollback(client)
    line = models(client, "list").stdout.splitlines()[1]
    assert f"rolled back on {datetime.now(UTC):%Y-%m-%d}, before that champion: {reason}" in line
    assert json.loads(models(client, "list", "--json").stdout)[0]["rolled_back"].startswith("20")
    registry.apply_decision(client, "2", Decision("champion", "better"))
    registry.apply_decision(client, "3", Decision("champion", "better"))
    assert "rolled back" not in models(client, "list").stdout
    registry.rollback(client)
    registry.apply_decision(client, "3", Decision("challenger", "not comparable"))


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_list_fits_into_the_terminal(client, width):
    reason = "better: f1_landslide 17.64 % against 17.43 %" + ", and a long story" * 60
    registry.apply_decision(client, "2", Decision("champion", reason))
    lines = in_terminal(client, width, "list")
    registry.apply_decision(client, "2", Decision("champion", "better"))
    assert width - 15 < max(map(len, lines)) <= width
    (first,) = (number for number, line in enumerate(lines) if line.startswith("2 "))
    assert "  better:" in lines[first]
    assert [line.endswith(" …") for line in lines[first : first + 3]] == [False, False, True]
    assert ("git_commit" in lines[0]) == (width > 140)


def test_whole_decisions_are_in_the_json_list_and_in_the_comparison(client):
    reason = "not better: " + "a long story " * 30 + "with an end"
    registry.apply_decision(client, "3", Decision("challenger", reason))
    listed = json.loads(models(client, "list", "--json").stdout)[0]["decision"]
    compared = json.loads(models(client, "compare", "2", "3", "--json").stdout)["decisions"][1]
    text = models(client, "compare", "2", "3").stdout
    registry.apply_decision(client, "3", Decision("challenger", "not comparable"))
    assert listed == compared == f"challenger: {reason}"
    assert f"  version 3: challenger: {reason}\n" in text


def in_terminal(client, width: int, *arguments: str) -> list[str]:
    """The lines that `landslide models` writes to a terminal of this width."""
    controlling, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, width))
    with os.fdopen(terminal, "w") as output, pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        patch.setattr(sys, "stdout", output)
        patch.setattr(sys, "__stdout__", output)
        cli.main(["models", *arguments], standalone_mode=False)
        output.flush()
        text = os.read(controlling, 100_000).decode()
    os.close(controlling)
    return text.splitlines()


def test_list_as_json_prints_full_values(client):
    found = json.loads(models(client, "list", "--json").stdout)
    assert [one["version"] for one in found] == [3, 2, 1]
    assert found[1]["aliases"] == "champion"
    assert found[1]["git_commit"] == "d" * 40
    assert found[1]["data_version"] == DATA_VERSION
    assert found[1]["created"].startswith("20")


def test_compare_shows_differences_of_scores_settings_and_code(client):
    result = models(client, "compare", "1", "@champion")
    assert result.exit_code == 0
    text = result.stdout
    assert "version 1" in text
    assert "version 2" in text
    assert "50.00 ± 1.00" in text
    assert "+12.50" in text
    assert "training.epochs: 3 -> 5" in text
    assert "training.loss" not in text
    assert f"git_commit: {'c' * 40} -> {'d' * 40}" in text
    assert "do not compare" not in text


def test_compare_reports_incomparable_scores_and_changed_patches(client):
    text = models(client, "compare", "1", "3").stdout
    assert "The scores do not compare" in text
    assert f"the data differ: {DATA_VERSION} and {'b' * 32}.dir" in text
    assert "the folds differ" in text
    assert "no difference" in text  # of settings
    found = json.loads(models(client, "compare", "1", "3", "--json").stdout)
    assert found["data"] == {
        "patches_of_a": 4,
        "patches_of_b": 4,
        "in_common": 3,
        "of_these_with_another_mask": 0,
        "of_these_in_another_fold": 1,
    }
    assert found["comparable"] is False
    assert found["scores"]["f1_macro"] == {"a": 0.5, "a_std": 0.01, "b": 0.5, "b_std": 0.01, "difference": 0.0}


def test_compare_of_a_version_with_itself_shows_no_difference(client):
    found = json.loads(models(client, "compare", "2", "champion", "--json").stdout)
    assert found["comparable"] is True
    assert found["data"] == found["settings"] == found["code"] == {}


def test_list_and_compare_show_what_a_model_scores_elsewhere(tmp_path, store):
    client = runs.connect(store)
    add_version(client, tmp_path, score=0.6)
    assert "in_scene" not in models(client, "list").stdout
    tags = {"tested_on": "another scene", "left_out": "a ring of 1 tile, 10 % in scene (seed 0)"}
    add_version(client, tmp_path, score=0.5, f1_macro_in_scene="0.750000", f1_landslide_in_scene="0.7", **tags)
    run_id = registry.version(client, "2")["run_id"]
    runs.log_scores(client, run_id, {f"{name}_in_scene": 0.75 for name in METRIC_NAMES})
    heading, second, first = models(client, "list").stdout.splitlines()
    columns = [heading.index(name) for name in ("f1_macro_in_scene", "f1_landslide_in_scene", "tested_on")]
    assert [second[column:].split("  ")[0] for column in columns] == ["75.00", "70.00", "another scene"]
    assert first[columns[0] :].startswith("- ")
    listed = json.loads(models(client, "list", "--json").stdout)[0]
    assert (listed["f1_macro_in_scene"], listed["tested_on"]) == (0.75, "another scene")
    text = models(client, "compare", "1", "2").stdout
    assert re.search(r"f1_macro_in_scene +- +75\.00 ± \S+ +-\n", text)
    assert "version 2: F1 in the scene 75.00, in another scene 50.00; landslide F1 in the scene 75.00" in text
    assert "the patches left out of training differ: nothing and a ring of 1 tile, 10 % in scene" in text
    compared = json.loads(models(client, "compare", "1", "2", "--json").stdout)
    assert compared["tested_on"] == ["", "another scene"]
    assert compared["scores"]["f1_macro_in_scene"]["b"] == 0.75


def test_unknown_version_exits_with_1_and_a_message(client):
    result = models(client, "compare", "1", "99")
    assert result.exit_code == 1
    assert "no version 99" in result.stderr
    assert "models list" in result.stderr


def test_rollback_reports_the_change_and_dry_run_changes_nothing(client):
    dry = models(client, "rollback", "--dry-run")
    assert dry.exit_code == 0
    assert "would return from version 2 to version 1" in dry.stdout
    assert registry.champion(client)["version"] == "2"
    done = models(client, "rollback")
    assert "returned from version 2 to version 1" in done.stdout
    assert registry.champion(client)["version"] == "1"
    again = models(client, "rollback")
    assert again.exit_code == 1
    assert "no version before the champion" in again.stderr
    registry.apply_decision(client, "2", Decision("champion", "better"))


def test_promote_records_the_reason_and_can_be_rolled_back(client):
    before = registry.champion(client)["version"]
    assert models(client, "promote", "3").exit_code == 2  # without a reason
    result = models(client, "promote", "3", "--reason", "a field campaign says so")
    assert result.exit_code == 0
    assert registry.champion(client)["version"] == "3"
    assert "a field campaign says so" in registry.version(client, "3")["decision"]
    models(client, "rollback")
    assert registry.champion(client)["version"] == before


def test_rollback_warns_before_it_returns_to_other_bands_or_to_the_demo_set(tmp_path, store):
    client = runs.connect(store)
    bands = {"bands": {"stored": ORIGINAL_BANDS}}
    add_version(client, tmp_path, params=bands, data_version=DEMO_VERSION)
    add_version(client, tmp_path, params={"bands": {"stored": ("B4", "B3", "B2")}})
    for number in "12":
        registry.apply_decision(client, number, Decision("champion", "better"))
    warnings = (
        "WARNING: version 1 was trained on the generated demo set\n"
        "WARNING: version 1 takes other patches: it expects the 14 bands of Landslide4Sense, and version 2 expects "
        "B4, B3, B2\n"
    )
    for options in (["--dry-run"], []):
        assert models(client, "rollback", *options).stderr == warnings
    registry.apply_decision(client, "2", Decision("champion", "better"))
    client.delete_model_version(registry.MODEL_NAME, "2")
    result = models(client, "rollback")
    assert result.stderr == "WARNING: version 1 was trained on the generated demo set\n"
    assert "the champion was deleted) to version 1 (@champion)" in result.stdout
