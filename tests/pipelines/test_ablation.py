"""The ablation pipeline: rows share folds and steps, a failed row is retried, the table matches the runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from landslide.metrics.counts import scores
from landslide.paths import default_tracking_uri, home
from landslide.tracking import runs
from tests.support import every_command, pipeline_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def client(stack):
    return runs.connect(default_tracking_uri())


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """The losses of the folds that are really trained, in order."""
    import steps.train_fold

    fit_fold, losses = steps.train_fold.fit_fold, []

    def recorded(task, **kwargs):
        losses.append(task.settings.loss)
        return fit_fold(task, **kwargs)

    monkeypatch.setattr(steps.train_fold, "fit_fold", recorded)
    return losses


def write_grid(path: Path, data: Path, *rows: dict, **parameters) -> Path:
    common = {
        "name": "tiny",
        "data": {"root": str(data)},
        "folds": {"n_folds": 2, "trained": [1]},
        "training": dict(pipeline_runs.TINY_TRAINING)
        | {"epochs": 1, "schedule": {"kind": "steps", "rates": [[1, 0.003]]}},
        "evaluation": {"figures": False},
    }
    path.write_text(yaml.safe_dump({"parameters": {**common, "rows": list(rows), **parameters}}))
    return path


def run_ablation(config: Path) -> None:
    from pipelines.ablation import ablation_pipeline

    ablation_pipeline.with_options(config_path=str(config))()


def read_report() -> pd.DataFrame:
    return pd.read_csv(home() / "reports" / "ablation" / "tiny" / "table.csv", keep_default_na=False, na_values=[""])


def test_ablation_shares_folds_survives_a_failed_row_and_reports_the_scores_of_the_runs(
    tiny_set, client, trainings, tmp_path
):
    from pipelines.configured import PipelineError

    # the training pipeline trains the settings of the first row
    quick = {"epochs": 1, "schedule": {"kind": "steps", "rates": [[1, 0.003]]}}
    folds = {"n_folds": 2, "trained": [1]}
    pipeline_runs.run_pipeline(
        pipeline_runs.write_config(tmp_path / "config.yaml", tiny_set, folds=folds, training=quick)
    )
    run = runs.latest_cross_validation(client)
    assert trainings == ["focal_lin+iou"]

    # the second row fails, and the table has the other rows
    trainings.clear()
    steady = {"name": "steady", "paper": {"f1_macro": 67.83}}
    diverging = {
        "name": "diverging",
        "training": {"loss": "iou", "epochs": 2, "schedule": {"kind": "steps", "rates": [[2, 3.0e37]]}},
    }
    last = {"name": "last", "training": {"seed": 0}}  # the settings of the first
    config = tmp_path / "grid.yaml"
    with pytest.raises(PipelineError) as caught:
        run_ablation(write_grid(config, tiny_set, steady, diverging, last))
    for expected in ("1 of 3 rows failed", "diverging", "fold 1: ", "the loss of epoch 2 is nan", "start again"):
        assert expected in str(caught.value)
    assert trainings == ["iou"]
    table = read_report()
    assert table["runs"][[0, 2]].tolist() == [run.info.run_id] * 2
    assert table["f1_macro"].notna().tolist() == [True, False, True]
    assert "nan" in table["failure"][1]

    # after the fix, only this row is trained
    trainings.clear()
    fixed = {"name": "diverging", "training": {"loss": "iou", "monitor_test_fold": True}, "recorded_as": "theirs"}
    recorded = tmp_path / "tests.csv"
    recorded.write_text("network_input,fold,test,f1_macro,miou\ntheirs,1,1,0.5,0.4\n")
    run_ablation(write_grid(config, tiny_set, steady, fixed, recorded_tests=str(recorded)))
    assert (home() / "reports" / "ablation" / "tiny" / "curves.png").stat().st_size > 5_000
    assert trainings == ["iou"]
    table = read_report()
    assert table["failure"].isna().all()
    assert table["runs"][0] == run.info.run_id

    # the scores, recomputed from the recorded counts of the folds
    counts = []
    for run_id in table["runs"]:
        (fold,) = runs.fold_runs(client, run_id).values()
        counts.append(pd.read_csv(client.download_artifacts(fold, "confusion_counts.csv")).to_numpy())
    for name in ("f1_macro", "miou", "f1_landslide"):
        expected = np.array([100 * scores(of_fold)[name] for of_fold in counts])
        np.testing.assert_allclose(table[name], expected)
        recorded = [100 * client.get_run(run_id).data.metrics[name] for run_id in table["runs"]]
        np.testing.assert_allclose(table[name], recorded)
        assert table[f"{name}_gain"][1] == pytest.approx(expected[1] - expected[0])
    assert table["f1_macro_minus_paper"][0] == pytest.approx(table["f1_macro"][0] - 67.83)
    assert table["patches"].tolist() == [5, 5]
    assert table["seconds"].gt(0).all()

    # MLflow links the table to its rows and the rows to the table
    (record,) = runs.search(client, f"tags.role = 'ablation' and tags.`runs 2` = 'diverging: {table['runs'][1]}'")
    assert (record.data.tags["ablation"], record.info.status) == ("tiny", "FINISHED")
    assert record.data.metrics["f1_macro.1"] == pytest.approx(table["f1_macro"][0])
    assert "diverging" in record.data.tags["mlflow.note.content"]
    files = {artifact.path for artifact in client.list_artifacts(record.info.run_id)}
    assert files == {"table.csv", "table.txt", "table.md", "table.html", "figure.png", "curves.png"}
    assert client.get_run(table["runs"][1]).data.tags["ablation.tiny"] == "diverging"
    every_command.check(tmp_path, None)


def test_each_row_and_seed_has_its_own_steps_and_rows_share_data_steps(stack, tmp_path):
    from pipelines.ablation import ablation_pipeline

    rows = [
        {"name": "A, b"},
        {"name": "c", "folds": {"trained": None, "scheme": "random"}},
        {"name": "d", "bands": {"median_kernel": 5}},
    ]
    config = write_grid(tmp_path / "grid.yaml", tmp_path / "nowhere", *rows, seeds=[0, 4])
    pipeline = ablation_pipeline.with_options(config_path=str(config))
    pipeline.prepare()
    assert set(pipeline.invocations) == {
        "ingest", "build_bands", "build_bands_2", "split", "split_2", "tabulate",
        *(f"{row}_seed_{s}_{step}" for row in "cd" for s in (0, 4) for step in ("open_run", "evaluate")),
        *(f"a_b_seed_{s}_{step}" for s in (0, 4) for step in ("open_run", "evaluate", "train_fold_1")),
        *(f"c_seed_{s}_train_fold_{fold}" for s in (0, 4) for fold in (1, 2)),
        *(f"d_seed_{s}_train_fold_1" for s in (0, 4)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "parameters", "expected"),
    [
        ([{"nam": "x"}], {}, ["parameters.rows[0].nam", "Did you mean 'name'"]),
        ([{"name": "x"}, {"name": "y", "trainin": {}}], {}, ["parameters.rows[1].trainin", "'training'"]),
        ([{"name": "x"}, {"name": "y", "training": {"epochz": 1}}], {}, ["rows[1] (y)", "'epochs'"]),
        ([{"name": "x"}], {"name": "Table 3"}, ["name is 'Table 3'"]),
        ([{"name": "x"}], {"seed": [1]}, ["parameters.seed", "'seeds'"]),
        ([], {}, ["no rows"]),
    ],
)
def test_invalid_grid_error_names_row_and_key(rows, parameters, expected, stack, tmp_path):
    from pipelines.ablation import ablation_pipeline
    from pipelines.configured import PipelineError

    config = write_grid(tmp_path / "grid.yaml", tmp_path / "nowhere", *rows, **parameters)
    with pytest.raises(PipelineError) as caught:
        ablation_pipeline.with_options(config_path=str(config)).prepare()
    for text in ("grid.yaml", *expected):
        assert text in str(caught.value)
