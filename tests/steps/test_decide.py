"""The steps that plan and decide a retraining, on registered versions with random weights."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from zenml.exceptions import RunInterruptedException

from landslide.data.demo import DEMO_VERSION
from landslide.errors import ComparisonError, ConfigurationError, DataError, RemoteError
from landslide.operations.relocation import relocate
from landslide.retraining import record
from landslide.retraining.out_of_fold import evidence_table
from landslide.retraining.promotion import PromotionSettings
from landslide.termination import Terminated
from landslide.tracking import registry, runs
from landslide.tracking.registry import Decision
from tests.support import versions
from tests.support.patch_tables import build_patch_table, digests

pytestmark = pytest.mark.slow

SETTINGS = PromotionSettings(min_blocks=2)


@pytest.fixture
def client(stack, store, tmp_path, monkeypatch):
    """A new store, which the steps find through the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", store)
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path))
    return runs.connect(store)


def _patches(n: int = 32) -> pd.DataFrame:
    positions = [(1 + i // 16, i % 16 // 4, i % 4) for i in range(n)]
    return build_patch_table(n, positions).assign(
        image=[f"TrainData/img/image_{i}.h5" for i in range(1, n + 1)],
        mask=[f"TrainData/mask/mask_{i}.h5" for i in range(1, n + 1)],
        mask_md5=digests(range(1001, n + 1001)),
    )


def _folded(n: int = 32) -> pd.DataFrame:
    return _patches(n).assign(fold=[1 + i // 16 for i in range(n)])


def _evidence(gain: int) -> pd.DataFrame:
    """Both models detect 50 of 100 pixels in every patch; the challenger `gain` more."""
    table = _folded()
    old = np.tile([[900, 50], [50, 50]], (len(table), 1, 1))
    new = old + np.array([[0, 0], [-gain, gain]])
    return evidence_table(table, *np.zeros((2, len(table)), bool), {"champion": old, "challenger": new})


def _decide(client, evidence, champion="1", challenger="2"):
    from steps.decide import decide

    retraining_run = record.open_record(client, f"pipeline {challenger} {len(evidence)}")
    runs.set_tags(client, retraining_run, {"champion": champion or "none"})
    outcome = decide.entrypoint(
        retraining_run=retraining_run, champion=champion, model_version=challenger, evidence=evidence,
        cross_validation_run="run", promotion=SETTINGS,
    )  # fmt: skip
    return outcome, client.get_run(retraining_run).data.tags


@pytest.fixture(scope="module")
def database_of_two_versions(empty_store, tmp_path_factory):
    """The database of a store with two versions, version 1 in service; no test writes to its artifacts."""
    folder = tmp_path_factory.mktemp("versions")
    path = Path(shutil.copy2(empty_store, folder / "mlflow.db"))
    client = runs.connect(f"sqlite:///{path}")
    versions.add_version(client, folder, table=_folded())
    versions.add_version(client, folder, seed=1, table=_folded())
    registry.apply_decision(client, "1", Decision(registry.CHAMPION, "the first registered model"))
    return path


@pytest.fixture
def two_versions(database_of_two_versions, client, monkeypatch):
    """A store with two versions, version 1 in service."""
    shutil.copy2(database_of_two_versions, client.tracking_uri.removeprefix("sqlite:///"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    relocate()
    return client


@pytest.mark.parametrize(("gain", "outcome", "in_service"), [(20, "promoted", "2"), (0, "refused", "1")])
def test_promotion_follows_the_evidence(two_versions, gain, outcome, in_service):
    decided, tags = _decide(two_versions, _evidence(gain))
    assert decided == tags["outcome"] == outcome
    assert registry.champion(two_versions)["version"] == in_service
    assert registry.version(two_versions, "2")["decision"].endswith(tags["reason"])
    if outcome == "refused":
        assert registry.version(two_versions, registry.CHALLENGER)["version"] == "2"


@pytest.mark.parametrize("killed_at", ["registry.apply_decision", "record.finish_decision"])
@pytest.mark.parametrize("by", ["a retried step", "the next night"])
def test_interrupted_promotion_is_completed_and_recorded(two_versions, monkeypatch, killed_at, by):
    import steps.decide

    def killed(*arguments):
        raise KeyboardInterrupt

    module, name = killed_at.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(steps.decide, module), name, killed)
        with pytest.raises(KeyboardInterrupt):
            _decide(two_versions, _evidence(20))
    cut_short = record.find_record(two_versions, "pipeline 2 32")
    assert "outcome" not in two_versions.get_run(cut_short).data.tags
    carried_out = killed_at == "record.finish_decision"
    if by == "a retried step":
        _decide(two_versions, _evidence(20))
    else:
        record.open_record(two_versions, "another pipeline run")
    run = two_versions.get_run(cut_short)
    finished = carried_out or by == "a retried step"
    assert run.data.tags["outcome"] == ("promoted" if finished else "interrupted")
    assert run.data.tags.get("decided") == ("true" if finished else None)
    assert registry.champion(two_versions)["version"] == ("2" if finished else "1")
    if finished:
        assert registry.version(two_versions, "2")["replaced_champion"] == "1"


def test_champion_changed_during_the_retraining_stays(two_versions, tmp_path):
    versions.add_version(two_versions, tmp_path, seed=2, table=_folded())
    registry.apply_decision(two_versions, "3", Decision(registry.CHAMPION, "by hand"))
    decided, tags = _decide(two_versions, _evidence(20))
    assert decided == "refused"
    assert "from 1 to 3" in tags["reason"]
    assert registry.champion(two_versions)["version"] == "3"


def test_rolled_back_challenger_is_refused(two_versions):
    """A forced retraining of the same data finds the version that was rolled back."""
    registry.apply_decision(two_versions, "2", Decision(registry.CHAMPION, "better"))
    registry.rollback(two_versions)
    decided, tags = _decide(two_versions, _evidence(20))
    assert decided == "refused"
    assert "rolled back" in tags["reason"]
    assert "landslide models promote" in tags["reason"]
    assert registry.champion(two_versions)["version"] == "1"


def test_promotion_that_was_rolled_back_before_it_was_recorded_stays_rolled_back(two_versions, monkeypatch):
    import steps.decide

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps.decide.record, "finish_decision", killed)
        with pytest.raises(KeyboardInterrupt):
            _decide(two_versions, _evidence(20))
    registry.rollback(two_versions)
    assert _decide(two_versions, _evidence(20))[0] == "refused"
    assert registry.champion(two_versions)["version"] == "1"


def test_a_champion_of_the_demo_set_gives_way_without_comparable_patches(two_versions):
    two_versions.set_model_version_tag(registry.MODEL_NAME, "1", "data_version", DEMO_VERSION)
    decided, tags = _decide(two_versions, _evidence(0).head(0))
    assert decided == "promoted"
    assert tags["reason"] == "version 1 was trained on the generated demo set"
    assert registry.champion(two_versions)["version"] == "2"


def test_nothing_is_promoted_without_comparable_patches(two_versions):
    decided, tags = _decide(two_versions, _evidence(20).head(0))
    assert decided == "refused"
    assert "no patch" in tags["reason"]


def test_challenger_identical_to_the_champion_is_unchanged(two_versions):
    decided, tags = _decide(two_versions, _evidence(0), challenger="1")
    assert decided == tags["outcome"] == "unchanged"
    assert "decided" not in tags
    assert "refus" not in registry.version(two_versions, "1")["decision"]


def test_too_few_blocks_are_refused(two_versions):
    one_block = _evidence(20).head(16)
    decided, tags = _decide(two_versions, one_block)
    assert decided == "refused"
    assert "only 1 block" in tags["reason"]


def test_first_model_is_promoted(client, tmp_path):
    versions.add_version(client, tmp_path, table=_folded())
    decided, tags = _decide(client, _evidence(0).head(0), champion="", challenger="1")
    assert decided == "promoted"
    assert registry.champion(client)["version"] == "1"
    assert tags["reason"] == registry.NONE_IN_SERVICE


def _plan(client, patches=None, data_version="d" * 32 + ".dir", training=None, folds=None, **options):
    from landslide.bands.formulas import BandSettings
    from landslide.training.fold import TrainingSettings
    from steps.plan import plan
    from steps.settings import DataSettings, FoldSettings, RetrainingSettings

    retraining_run = record.open_record(client, f"plan {np.random.default_rng().integers(1 << 60)}")
    names = ("fold_table", "departed", "champion", "start_from", "should_train")
    values = plan.entrypoint(
        retraining_run=retraining_run, patch_table=_patches() if patches is None else patches,
        data_version=data_version, data=DataSettings(), bands=BandSettings(),
        folds=FoldSettings(n_folds=2, **folds or {}), training=training or TrainingSettings(),
        retraining=RetrainingSettings(**options),
    )  # fmt: skip
    return retraining_run, dict(zip(names, values, strict=True))


def _decided(client, retraining_run, outcome="refused"):
    runs.set_tags(client, retraining_run, {"decided": "true"})
    record.close_record(client, retraining_run, outcome, "as a test says")


def test_plan_without_champion_makes_new_folds(client):
    _, plan = _plan(client)
    assert (plan["champion"], plan["start_from"], plan["should_train"]) == ("", "", True)
    assert sorted(plan["fold_table"]["fold"].unique()) == [1, 2]


def test_plan_with_champion_keeps_its_folds_and_records_departed_patches(two_versions):
    from_table = _patches(40).iloc[4:]  # four left, eight are new
    _, plan = _plan(two_versions, from_table.reset_index(drop=True), start="champion")
    assert (plan["champion"], plan["start_from"], plan["should_train"]) == ("1", "1", True)
    kept = plan["fold_table"].set_index("number")["fold"]
    old = _folded().set_index("number")["fold"]
    pd.testing.assert_series_equal(kept.loc[5:32], old.loc[5:32])
    assert plan["departed"]["number"].tolist() == [1, 2, 3, 4]


RANDOM = {"scheme": "random", "n_folds": 2, "seed": 3, "table": None}
CONTIGUOUS = {"scheme": "contiguous", "n_folds": 2, "seed": 0, "table": None}


def _champion_of(client, folder, folds):
    params = {"training": {"epochs": 3}} | ({"folds": folds} if folds else {})
    versions.add_version(client, folder, table=_folded(), params=params)
    registry.apply_decision(client, "1", Decision(registry.CHAMPION, "the first registered model"))


@pytest.mark.parametrize(
    ("champion", "folds", "named", "remedy"),
    [
        (RANDOM, {}, "folds.scheme is 'contiguous'", "Set folds.scheme: random"),
        (CONTIGUOUS, {"scheme": "scene_blocked"}, "folds.scheme is 'scene_blocked'", "Set folds.scheme: contiguous"),
        (RANDOM, {"scheme": "random", "seed": 4}, "folds.seed is 4", "Set folds.seed: 3"),
        (CONTIGUOUS, {"table": "other.csv"}, "folds.table is 'other.csv'", "Leave folds.table out"),
        (
            CONTIGUOUS | {"table": "t.csv"},
            {"table": "other.csv"},
            "folds.table is 'other.csv'",
            "Set folds.table: t.csv",
        ),
    ],
)
def test_fold_settings_that_differ_from_the_champions_are_refused(client, tmp_path, champion, folds, named, remedy):
    _champion_of(client, tmp_path, champion)
    with pytest.raises(ConfigurationError, match=f"{named} and has no effect: .* champion, version 1") as error:
        _plan(client, folds=folds)
    assert error.value.remedy.startswith(remedy)
    assert "landslide models promote" in error.value.remedy


@pytest.mark.parametrize(
    ("champion", "folds"),
    [
        (CONTIGUOUS, {}),
        (RANDOM, {"scheme": "random", "seed": 3}),
        (CONTIGUOUS | {"seed": 7}, {}),  # recorded by an older release, which ignored the seed silently
        (CONTIGUOUS | {"table": "t.csv"}, {}),
        (CONTIGUOUS | {"table": "t.csv"}, {"table": "t.csv"}),
        (RANDOM | {"table": "t.csv"}, {"scheme": "random"}),
        (None, {"scheme": "random"}),  # not recorded
    ],
)
def test_fold_settings_of_the_champion_are_accepted(client, tmp_path, champion, folds):
    _champion_of(client, tmp_path, champion)
    _, plan = _plan(client, folds=folds)
    assert (plan["champion"], plan["should_train"]) == ("1", True)


def test_one_decision_per_data_version_unless_forced(two_versions, monkeypatch):
    from landslide.training.fold import TrainingSettings

    retraining_run, _ = _plan(two_versions)
    _decided(two_versions, retraining_run)
    again, plan = _plan(two_versions)
    assert not plan["should_train"]
    tags = two_versions.get_run(again).data.tags
    assert tags["outcome"] == "unchanged"
    assert "data, code and settings are unchanged" in tags["reason"]

    other, plan = _plan(two_versions, training=TrainingSettings(seed=7))
    assert not plan["should_train"]
    assert "one decision per data version" in two_versions.get_run(other).data.tags["reason"]

    assert _plan(two_versions, data_version="e" * 32 + ".dir")[1]["should_train"]
    assert _plan(two_versions, force=True)[1]["should_train"]
    monkeypatch.setenv("LANDSLIDE_FORCE", "1")
    assert _plan(two_versions)[1]["should_train"]


def test_champion_without_fold_table_is_refused(client, tmp_path):
    versions.add_version(client, tmp_path, table=_folded())
    registry.apply_decision(client, "1", Decision(registry.CHAMPION, "by hand"))
    (tmp_path / "mlartifacts" / registry.champion(client)["run_id"] / "artifacts" / "fold_table.csv").unlink()
    with pytest.raises(ComparisonError, match="has no fold table"):
        _plan(client)


def test_epochs_chosen_on_the_test_folds_are_refused(client):
    from landslide.training.fold import TrainingSettings

    with pytest.raises(ConfigurationError, match="inner_validation"):
        _plan(client, training=TrainingSettings(selection="test_fold"))


def test_retraining_on_a_subset_of_folds_is_refused(client):
    with pytest.raises(ConfigurationError, match=r"folds.trained is \[2\](.|\n)*Leave folds.trained out"):
        _plan(client, folds={"trained": (2,)})


def test_warm_start_from_a_version_that_has_seen_the_test_folds_is_refused(client, tmp_path):
    from landslide.retraining.out_of_fold import check_unseen_folds

    previous = _folded()
    start = {"version": "1", "selection": "inner_validation"}
    check_unseen_folds(_folded(), previous, start)
    with pytest.raises(ComparisonError, match="patch 3 was in another fold"):
        check_unseen_folds(previous.assign(fold=[1, 1, 2, *previous["fold"][3:]]), previous, start)
    with pytest.raises(ComparisonError, match="chose its epochs"):
        check_unseen_folds(_folded(), previous, start | {"selection": "test_fold"})


def test_warm_start_from_a_champion_selected_on_the_test_folds_is_refused(client, tmp_path):
    versions.add_version(client, tmp_path, table=_folded(), selection="test_fold")
    registry.apply_decision(client, "1", Decision(registry.CHAMPION, "the paper's protocol"))
    with pytest.raises(ConfigurationError, match="scratch"):
        _plan(client, start="champion")
    assert _plan(client, start="scratch")[1]["should_train"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DataError("image_3.h5 is truncated", remedy="copy it again"), "refused"),
        (RemoteError("the remote does not answer", remedy="try again"), "failed"),
        (ValueError("a bug"), "failed"),
        (Terminated(), "interrupted"),
        (RunInterruptedException("stopped"), "interrupted"),
    ],
)
def test_failed_step_closes_the_record(client, monkeypatch, tmp_path, error, outcome):
    from types import SimpleNamespace

    import steps.hooks

    retraining_run = record.open_record(client, "this pipeline run")
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {'e' * 32}.dir\n  path: data\n")
    settings = SimpleNamespace(parameters={"data": {"root": str(tmp_path / "data")}})
    context = SimpleNamespace(
        pipeline_run=SimpleNamespace(id="this pipeline run"), step_run=SimpleNamespace(name="ingest", config=settings)
    )
    monkeypatch.setattr(steps.hooks, "get_step_context", lambda: context)
    steps.hooks.record_failure(error)
    run = client.get_run(retraining_run)
    assert run.data.tags["outcome"] == outcome
    assert run.data.tags["reason"].startswith(f"step ingest: {error}")
    assert run.info.status == {"refused": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[outcome]
    report = (tmp_path / "reports" / "retraining.md").read_text()
    assert f"| data version | {'e' * 32}.dir, as data.dvc pins it |" in report


def test_failure_before_the_record_exists_is_notified(client, monkeypatch):
    from types import SimpleNamespace

    import steps.hooks

    context = SimpleNamespace(pipeline_run=SimpleNamespace(id="x"), step_run=SimpleNamespace(name="open_retraining"))
    monkeypatch.setattr(steps.hooks, "get_step_context", lambda: context)
    told = []
    monkeypatch.setattr(steps.hooks, "notify", lambda event, **facts: told.append((event, facts["reason"])))
    steps.hooks.record_failure(ValueError("the disk is full"))
    assert told == [("failure", "step open_retraining: the disk is full")]
