"""From new labels to a promoted model, as a mapping group and its runner see it, night after night.

The group has a git repository and a DVC remote; the runner has a clone, a LANDSLIDE_HOME outside of it, and runs the
scheduled command. Each night is a fixture that builds on the previous night.
"""

import csv
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from landslide.data.patches import find_patches
from landslide.tracking import metric_keys
from tests.support import commands, every_command, pipeline_runs
from tests.support.webhook import webhook as listening_webhook

pytestmark = pytest.mark.slow

COMMAND = "zenml pipeline run pipelines.retraining.retraining_pipeline -c configs/retrain.yaml"
FIRST = "zenml pipeline run pipelines.training.training_pipeline -c configs/first.yaml"
SCENES = ((2, 3),) * 6
# The group's first patches: four scenes without one tile, which comes later and is adjacent to old ones.
LATER = (6, *range(25, 37))
TRAINING = {
    "bands": "23",
    "model": "rau_net",
    "model_options": {"width": 6, "head_width": 8, "batch_norm_momentum": 0.1},
    "crop": 64,
    "optimizer": "adamw",
}


@dataclass
class Night:
    """The result of one run of the scheduled command."""

    returncode: int
    output: str
    report: dict


class Group:
    """The group's checkout and remote, and the runner's clone."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.checkout, self.remote, self.home = folder / "group", folder / "remote", home
        self.runner, self.upstream = folder / "runner", folder / "upstream.git"
        self.posts: list[dict] = []

    def sh(self, *command: str, cwd: Path | None = None) -> str:
        cwd = cwd or self.checkout
        done = commands.run(command, cwd=cwd, env=pipeline_runs.cli_environment(self.home, cwd))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def found(self) -> None:
        """Make the repository with the project and the remote, and clone it for the runner."""
        pipeline_runs.copy_project(self.checkout, ".gitignore", ".dvcignore")
        (self.checkout / "configs").mkdir()
        data, folds = {"fetch": True}, {"n_folds": 2}
        first = TRAINING | {"epochs": 1, "schedule": {"kind": "steps", "rates": [[1, 1e-4]]}}
        better = TRAINING | {"epochs": 6, "schedule": {"kind": "steps", "rates": [[4, 4e-3], [6, 1e-3]]}}
        for name, training in (("first", first), ("retrain", better)):
            path = self.checkout / "configs" / f"{name}.yaml"
            pipeline_runs.write_config(path, Path("data"), data=data, folds=folds, training=training)
        git = ("git", "-c", "user.name=group", "-c", "user.email=group@localhost")
        self.git = git
        self.sh("git", "init", "-q", "-b", "main")
        self.sh("dvc", "init", "-q")
        self.sh("dvc", "remote", "add", "-q", "-d", "store", str(self.remote))
        self.sh("git", "init", "-q", "--bare", "-b", "main", str(self.upstream))
        self.sh("git", "remote", "add", "origin", str(self.upstream))

    def publish(self, message: str) -> None:
        """Pin the content of ./data, push it to the remote, commit and push the pin."""
        self.sh("dvc", "add", "-q", "data")
        self.sh("dvc", "push", "-q")
        self.sh("git", "add", "-A")
        self.sh(*self.git, "commit", "-q", "-m", message)
        self.sh("git", "push", "-q", "origin", "main")

    def night(self, command: str = COMMAND, **environment: str) -> Night:
        """Pull the newest commit and run the scheduled command as the runner does."""
        if self.runner.exists():
            self.sh("git", "pull", "-q", "--ff-only", cwd=self.runner)
        else:
            self.sh("git", "clone", "-q", str(self.upstream), str(self.runner))
        variables = pipeline_runs.cli_environment(self.home, self.runner) | environment
        done = commands.run(command.split(), cwd=self.runner, env=variables)
        report = self.home / "reports" / "retraining.json"
        output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        return Night(done.returncode, output, json.loads(report.read_text()) if report.exists() else {})

    @property
    def client(self):
        from mlflow.tracking import MlflowClient

        uri = f"sqlite:///{self.home / 'mlflow.db'}"
        return MlflowClient(uri, uri)

    def record(self, night: Night):
        return self.client.get_run(night.report["run_id"])

    def champion(self) -> str:
        return str(self.client.get_model_version_by_alias("landslide-segmentation", "champion").version)

    def table(self, version: str) -> pd.DataFrame:
        """The fold table of a registered version, by the content of the images."""
        run_id = self.client.get_model_version("landslide-segmentation", version).tags["run_id"]
        return pd.read_csv(self.client.download_artifacts(run_id, "fold_table.csv")).set_index("image_md5")


@pytest.fixture(scope="module")
def webhook():
    """A webhook: its address, and the posts that it received."""
    with listening_webhook() as (host, posts):
        yield f"http://{host}/", posts


@pytest.fixture(scope="module")
def founded(tmp_path_factory, new_home, webhook):
    """The group has trained and registered its first model, on some of the patches."""
    from landslide.data.demo import generate

    folder = tmp_path_factory.mktemp("group")
    generate(folder / "all", scenes=SCENES)
    group = Group(folder, new_home())
    group.found()
    shutil.copytree(folder / "all", group.checkout / "data")
    for number in LATER:
        for patch in ("img/image", "mask/mask"):
            (group.checkout / "data" / "TrainData" / f"{patch}_{number}.h5").unlink()
    _write_scenes(group.checkout / "data", folder / "all" / "scenes.csv", without=LATER)
    group.publish("The first patches")
    night = group.night(FIRST)
    assert night.returncode == 0, night.output
    return group


@pytest.fixture(scope="module")
def with_new_labels(founded, webhook) -> tuple[Group, Night]:
    """New patches were published: the scheduled command runs."""
    everything = founded.checkout.parent / "all"
    shutil.copytree(everything, founded.checkout / "data", dirs_exist_ok=True)
    founded.publish("New labels")
    return founded, founded.night(LANDSLIDE_WEBHOOK_URL=webhook[0])


@pytest.fixture(scope="module")
def unchanged(with_new_labels, webhook) -> tuple[Group, Night]:
    """The next night, with no change."""
    group, _ = with_new_labels
    return group, group.night(LANDSLIDE_WEBHOOK_URL=webhook[0])


@pytest.fixture(scope="module")
def shuffled(unchanged, webhook) -> tuple[Group, Night]:
    """Worthless labels were published: masks shuffled among the patches. Training starts from the champion."""
    group, _ = unchanged
    patches = find_patches(group.checkout / "data")
    masks = [patch.mask.read_bytes() for patch in patches]
    order = np.random.default_rng(0).permutation(len(masks))
    for patch, source in zip(patches, order, strict=True):
        patch.mask.unlink()
        patch.mask.write_bytes(masks[source])
    config = group.checkout / "configs" / "retrain.yaml"
    content = yaml.safe_load(config.read_text())
    content["parameters"]["retraining"] = {"start": "champion"}
    content["parameters"]["training"]["epochs"] = 2
    config.write_text(yaml.safe_dump(content))
    group.publish("Labels from somewhere")
    return group, group.night(LANDSLIDE_WEBHOOK_URL=webhook[0])


@pytest.fixture(scope="module")
def broken(shuffled, webhook) -> tuple[Group, Night]:
    """A truncated file was committed."""
    group, _ = shuffled
    image = find_patches(group.checkout / "data")[2].image
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content[:5000])
    group.publish("A broken file")
    return group, group.night(LANDSLIDE_WEBHOOK_URL=webhook[0])


def assert_ends_with_the_outcome(group: Group, night: Night, in_service: str) -> None:
    """The last lines of the output say what came out, once."""
    rows = [f"retraining {night.report['outcome']}", f"reason {night.report['reason']}"]
    rows += [f"in service landslide-segmentation version {in_service}"]
    rows += [f"report {group.home / 'reports' / 'retraining.md'}"]
    if night.returncode:
        rows.pop(1)  # which the error message says
    last = [re.sub(r" {2,}", " ", line).strip() for line in night.output.splitlines() if line.strip()][-len(rows) :]
    assert last == rows
    assert night.output.count(str(group.home / "reports" / "retraining.md")) == 1


def _write_scenes(data: Path, source: Path, without: tuple[int, ...]) -> None:
    with source.open() as file:
        rows = [row for row in csv.reader(file) if not row[0].isdigit() or int(row[0]) not in without]
    with (data / "scenes.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_better_challenger_is_promoted(with_new_labels):
    group, night = with_new_labels
    assert night.returncode == 0, night.output
    assert night.report["outcome"] == "promoted"
    assert group.champion() == night.report["version"] == "2"
    assert_ends_with_the_outcome(group, night, "2")


def test_only_new_patches_are_computed(with_new_labels):
    assert f"Bands of {len(LATER)} patches computed, 23 taken from older caches." in with_new_labels[1].output


def test_old_patches_keep_their_fold_and_new_ones_join_their_neighbours(with_new_labels):
    group, _ = with_new_labels
    before, after = group.table("1"), group.table("2")
    assert len(before) == 23
    assert len(after) == 36
    pd.testing.assert_series_equal(after.loc[before.index, "fold"], before["fold"])
    joined = after[after["number"] == 6].iloc[0]
    neighbours = before[
        (before["scene"] == joined["scene"])
        & ((before["row"] - joined["row"]).abs() + (before["column"] - joined["column"]).abs() == 1)
    ]
    assert len(neighbours) == 2
    assert joined["fold"] in set(neighbours["fold"])


def test_the_scores_of_the_night_are_reported_with_its_decision(with_new_labels, tmp_path):
    group, night = with_new_labels
    report = group.sh("landslide", "report", cwd=group.runner)
    assert "landslide-segmentation version 2, @champion (" in report
    assert "(champion" not in report
    assert f"MLflow run     {group.record(night).data.tags['cross_validation_run']}" in report
    store = {"LANDSLIDE_HOME": str(group.home), "MLFLOW_TRACKING_URI": group.client.tracking_uri}
    every_command.check(tmp_path, "2", **store)


def test_decision_is_recorded_with_its_evidence(with_new_labels):
    group, night = with_new_labels
    record = group.record(night)
    tags, metrics = record.data.tags, metric_keys.metrics(record)
    assert (tags["role"], tags["outcome"], tags["champion"], tags["challenger"]) == ("retraining", "promoted", "1", "2")
    assert record.info.status == "FINISHED"
    assert metrics["challenger_f1_landslide"] > metrics["champion_f1_landslide"]
    assert metrics["f1_landslide_difference_low"] > 0
    assert metrics["new_patches"] == len(LATER)
    assert {"new_champion_f1_macro", "new_challenger_f1_macro", "f1_macro_difference"} <= set(metrics)
    files = {artifact.path for artifact in group.client.list_artifacts(night.report["run_id"])}
    assert {"evidence.csv", "drift.csv", "report.md", "figures"} <= files
    evidence = pd.read_csv(group.client.download_artifacts(night.report["run_id"], "evidence.csv"))
    counts = [f"challenger_{cell}" for cell in ("true_positives", "false_positives", "false_negatives")]
    hits, alarms, misses = evidence[counts].sum()
    assert metrics["challenger_f1_landslide"] == pytest.approx(2 * hits / (2 * hits + alarms + misses))


def test_no_compared_patch_was_used_to_train_the_model_that_predicts_it(with_new_labels, shuffled):
    """Compares with the rows that the folds of both versions were trained on, not with the fold numbers."""
    for group, night, versions in ((*with_new_labels, ("1", "2")), (*shuffled, ("2", "3"))):
        evidence = pd.read_csv(group.client.download_artifacts(night.report["run_id"], "evidence.csv"))
        assert len(evidence) > 0
        for version in versions:
            trained = _trained_on(group, version)
            for patch in evidence.itertuples():
                assert patch.image_md5 not in trained[patch.fold], (version, patch)


def _trained_on(group: Group, version: str) -> dict[int, set[str]]:
    """The images that each member of a version has seen, including those of the version that it started from."""
    tags = group.client.get_model_version("landslide-segmentation", version).tags
    table = pd.read_csv(group.client.download_artifacts(tags["run_id"], "fold_table.csv"))
    seen = {fold: set(table[table["fold"] != fold]["image_md5"]) for fold in (1, 2)}
    if tags["start_from"]:
        older = _trained_on(group, tags["start_from"])
        seen = {fold: images | older[fold] for fold, images in seen.items()}
    return seen


def test_unchanged_data_trains_nothing(unchanged):
    group, night = unchanged
    assert night.returncode == 0, night.output
    assert night.report["outcome"] == "unchanged"
    assert "unchanged since" in night.report["reason"]
    assert "epoch" not in night.output
    assert "Created version" not in night.output
    assert_ends_with_the_outcome(group, night, "2")


def test_worse_challenger_is_refused(shuffled):
    group, night = shuffled
    assert night.returncode == 0, night.output
    assert night.report["outcome"] == "refused"
    assert group.champion() == "2"
    aliases = group.client.get_model_version_by_alias("landslide-segmentation", "challenger")
    assert str(aliases.version) == night.report["version"] == "3"
    assert group.record(night).data.metrics["f1_landslide_difference_low"] <= 0
    assert_ends_with_the_outcome(group, night, "2")


def test_the_night_tells_the_gain_on_unchanged_and_on_changed_labels(shuffled):
    group, night = shuffled
    evidence = pd.read_csv(group.client.download_artifacts(night.report["run_id"], "evidence.csv"))
    before, after = (group.table(version)["mask_md5"].loc[evidence["image_md5"]].to_numpy() for version in ("2", "3"))
    assert evidence["relabelled"].tolist() == (before != after).tolist()
    assert 0 < evidence["relabelled"].sum() < len(evidence)
    metrics = metric_keys.metrics(group.record(night))
    for part, chosen in (("relabelled", evidence["relabelled"]), ("unchanged", ~evidence["relabelled"])):
        assert metrics[f"{part}_patches"] == chosen.sum()
        for model in ("champion", "challenger"):
            cells = [f"{model}_{cell}" for cell in ("true_positives", "false_positives", "false_negatives")]
            hits, alarms, misses = evidence[chosen][cells].sum()
            union = hits + alarms + misses
            assert metrics[f"{part}_{model}_f1_landslide"] == pytest.approx(2 * hits / (hits + union) if union else 1)
    report = (group.home / "reports" / "retraining.md").read_text()
    assert "| patches whose labels did not change | champion | challenger | difference |" in report


def test_warm_start_initializes_each_fold_from_the_same_fold(shuffled):
    group, _ = shuffled
    version = group.client.get_model_version("landslide-segmentation", "3")
    assert version.tags["start_from"] == "2"
    champion = group.client.get_model_version("landslide-segmentation", "2").tags["run_id"]
    members = json.loads(_artifact_of(group, champion, "ensemble.json").read_text())["members"]
    assert len({member["sha256"] for member in members}) == 2
    text = f"tags.role = 'fold' and tags.`mlflow.parentRunId` = '{version.tags['run_id']}'"
    folds = group.client.search_runs([group.client.get_run(champion).info.experiment_id], text)
    started = {int(run.data.tags["fold"]): run.data.tags["start_weights"] for run in folds}
    assert started == {member["fold"]: member["sha256"] for member in members}


def _artifact_of(group: Group, run_id: str, name: str) -> Path:
    """A file of the model that a run logged."""
    models = group.client.search_logged_models([group.client.get_run(run_id).info.experiment_id])
    (model,) = (model for model in models if model.source_run_id == run_id)
    (path,) = Path(model.artifact_location.removeprefix("file://")).rglob(name)
    return path


def test_drift_of_changed_masks_is_reported(shuffled):
    group, night = shuffled
    tags = group.record(night).data.tags
    assert tags["drift"] == "none"  # the same number of landslide pixels, and the same bands


def test_broken_data_is_refused_before_training(broken):
    group, night = broken
    assert night.returncode == 1
    assert night.report["outcome"] == "refused"
    assert "image_3.h5" in night.report["reason"]
    assert night.report["data_version"].endswith(".dir, as data.dvc pins it")
    assert "epoch" not in night.output
    assert "Traceback" not in night.output[night.output.rindex("Error:") :]
    assert group.record(night).data.tags["outcome"] == "refused"
    assert group.champion() == "2"
    assert_ends_with_the_outcome(group, night, "2")


def test_webhook_receives_only_promotion_and_refusals(broken, webhook):
    told = [post.content for post in webhook[1]]
    assert [content["event"] for content in told] == ["promotion", "refusal", "refusal"]
    assert told[0]["version"] == "2"


def test_rollback_returns_to_the_previous_version_and_lasts(broken):
    group, _ = broken
    group.sh("landslide", "models", "rollback", cwd=group.runner)
    assert group.champion() == "1"
    assert "champion" not in group.client.get_model_version("landslide-segmentation", "2").aliases


def test_every_retraining_has_a_record(broken):
    group, _ = broken
    experiment = group.client.get_experiment_by_name("landslide-segmentation").experiment_id
    runs = group.client.search_runs([experiment], "tags.role = 'retraining'", order_by=["attributes.start_time"])
    assert [run.data.tags["outcome"] for run in runs] == ["promoted", "unchanged", "refused", "refused"]
    assert all(run.data.tags["reason"] for run in runs)
    assert list((group.home / "checkpoints").iterdir()) == []
