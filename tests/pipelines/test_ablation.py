"""The table of an ablation: its statistics, what it says, its grid, and the pipeline that trains and continues it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.ablation.report import ablation_figure, render_html, render_markdown, render_text, write_files
from landslide.ablation.table import AblationRow, Trained, ablation_table
from landslide.errors import ConfigurationError
from landslide.metrics.bootstrap import paired_differences, score_intervals
from landslide.metrics.counts import scores
from landslide.paths import default_tracking_uri, home
from landslide.tracking import runs
from landslide.training.augmentation import AugmentationSettings
from landslide.training.optimizers import CosineSchedule, StepSchedule
from tests.support import pipeline_runs

TAGS = {"folds_trained": "1", "fold_scheme": "contiguous", "selection": "test_fold"}


def patches(random: np.random.Generator, n: int = 40, hits: float = 0.7, per_block: int = 4) -> pd.DataFrame:
    """Counts of patches with landslides of some size, of which a share is found."""
    true = random.integers(1, 3000, n)
    tp = random.binomial(true, hits)
    fp = random.binomial(16384 - true, 0.02)
    numbers = np.arange(1, n + 1)
    return pd.DataFrame(
        {
            "number": numbers,
            "fold": 1,
            "block": numbers // per_block,
            "tn": 16384 - true - fp,
            "fp": fp,
            "fn": true - tp,
            "tp": tp,
        }
    )


def counts(table: pd.DataFrame) -> np.ndarray:
    return table[["tn", "fp", "fn", "tp"]].to_numpy().reshape(-1, 2, 2)


def trained(table: pd.DataFrame, *, seed: int = 0, failure: str = "", seconds: float = 60.0) -> Trained:
    if failure:
        return Trained(seed, f"run{seed}", TAGS, pd.DataFrame(), float("nan"), failure)
    return Trained(seed, f"run{seed}", TAGS, table, seconds, "")


def row(name: str, *trainings: Trained, **paper: float) -> AblationRow:
    return AblationRow(name, paper, 31_397_122, 28.1, trainings)


@pytest.fixture
def pair():
    """Two models on the same patches, the second better."""
    random = np.random.default_rng(0)
    first = patches(random)
    true = first["fn"] + first["tp"]
    found = np.maximum(first["tp"], random.binomial(true, 0.8))
    return first, first.assign(tp=found, fn=true - found)


def test_with_one_seed_the_intervals_are_those_of_the_block_bootstrap(pair):
    first, second = pair
    blocks = first["block"].to_numpy()
    table = ablation_table([row("a", trained(first)), row("b", trained(second))])
    expected = 100 * score_intervals(counts(second), blocks)
    gains = 100 * paired_differences(counts(first), counts(second), blocks)
    for name in ("f1_macro", "miou", "f1_landslide"):
        found = table.loc[1, [name, f"{name}_low", f"{name}_high"]].tolist()
        assert found == pytest.approx(expected.loc[name].tolist())
        assert table.loc[1, [f"{name}_gain", f"{name}_gain_low", f"{name}_gain_high"]].tolist() == pytest.approx(
            gains.loc[name].tolist()
        )
    assert np.isnan(table.loc[0, "f1_macro_gain"])
    assert table["common_patches"].tolist()[1] == 40


def test_a_row_compared_with_its_own_predictions_gains_nothing(pair):
    table = ablation_table([row("a", trained(pair[0])), row("again", trained(pair[0]))])
    assert table.loc[1, ["f1_macro_gain", "f1_macro_gain_low", "f1_macro_gain_high"]].tolist() == [0, 0, 0]


def test_the_interval_covers_the_seeds_where_the_patches_all_look_alike():
    """Two seeds, no difference between patches: a quarter of the draws is one seed, a quarter the other, half both."""
    alike = pd.DataFrame(
        {"number": range(1, 31), "fold": 1, "block": range(30), "tn": 15000, "fp": 384, "fn": 300, "tp": 700}
    )
    better = alike.assign(fn=100, tp=900)
    low, high = (100 * scores(counts(table).sum(axis=0))["f1_macro"] for table in (alike, better))
    found = ablation_table([row("a", trained(alike), trained(better, seed=1))]).iloc[0]
    assert found["f1_macro"] == pytest.approx((low + high) / 2)
    assert found["f1_macro_spread"] == pytest.approx((high - low) / 2)
    assert found[["f1_macro_low", "f1_macro_high"]].tolist() == pytest.approx([low, high])
    assert found["seeds"] == "0 1"


def test_seeds_and_blocks_are_drawn_independently_of_each_other():
    """Two seeds, two blocks: the ends are the worst and the best of the four, each a sixteenth of all draws."""
    random = np.random.default_rng(4)
    seeds = [patches(random, n=8, hits=hits).assign(block=[0] * 4 + [1] * 4) for hits in (0.5, 0.9)]
    corners = [
        100 * scores(counts(table[table["block"] == block]).sum(axis=0))["f1_macro"]
        for table in seeds
        for block in (0, 1)
    ]
    one = row("a", trained(seeds[0]), trained(seeds[1], seed=1))
    for found in ablation_table([one, one, one])[["f1_macro_low", "f1_macro_high"]].to_numpy():
        assert found.tolist() == pytest.approx([min(corners), max(corners)])


def test_the_seeds_of_two_rows_are_drawn_independently():
    """Equal rows whose seeds differ: a gain may be as large as one seed over the other, either way."""
    alike = pd.DataFrame(
        {"number": range(1, 31), "fold": 1, "block": range(30), "tn": 15000, "fp": 384, "fn": 300, "tp": 700}
    )
    seeds = trained(alike), trained(alike.assign(fn=100, tp=900), seed=1)
    spread = np.diff([100 * scores(counts(one.patches).sum(axis=0))["f1_macro"] for one in seeds])[0]
    found = ablation_table([row("a", *seeds), row("b", *seeds)]).iloc[1]
    assert found["f1_macro_gain"] == 0
    assert found[["f1_macro_gain_low", "f1_macro_gain_high"]].tolist() == pytest.approx([-spread, spread])


def test_the_interval_is_of_the_mean_over_the_folds():
    """Two folds of one block each: of four equally likely draws one has fold 1 alone, one fold 2 alone."""
    random = np.random.default_rng(6)
    table = patches(random, n=8, hits=0.5)
    easy = patches(random, n=8, hits=0.95)
    table = pd.concat([table[:2], easy[2:]]).assign(fold=[1] * 2 + [2] * 6, block=[0] * 2 + [1] * 6)
    of_folds = [100 * scores(counts(part).sum(axis=0))["f1_macro"] for _, part in table.groupby("fold")]
    found = ablation_table([row("a", trained(table)), row("b", trained(table.assign(fold=1)))])
    assert found.loc[0, "f1_macro"] == pytest.approx(np.mean(of_folds))
    assert found.loc[0, ["f1_macro_low", "f1_macro_high"]].tolist() == pytest.approx(sorted(of_folds))
    pooled = 100 * scores(counts(table).sum(axis=0))["f1_macro"]
    assert found.loc[1, "f1_macro_gain"] == pytest.approx(pooled - np.mean(of_folds))
    assert abs(pooled - np.mean(of_folds)) > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 39))
def test_a_gain_is_measured_on_the_patches_that_both_rows_scored(cut):
    first = patches(np.random.default_rng(1))
    second = patches(np.random.default_rng(2)).assign(number=lambda table: table["number"] + cut)
    table = ablation_table([row("a", trained(first)), row("b", trained(second))], resamples=50).iloc[1]
    one, other = first[first["number"] > cut], second[second["number"] <= 40]
    pooled = [100 * scores(counts(part).sum(axis=0))["miou"] for part in (one, other)]
    assert table["common_patches"] == 40 - cut
    assert table["miou_gain"] == pytest.approx(pooled[1] - pooled[0])


def test_rows_without_a_patch_in_common_are_not_compared():
    random = np.random.default_rng(3)
    other = patches(random).assign(number=lambda table: table["number"] + 100)
    found = ablation_table([row("a", trained(patches(random))), row("b", trained(other))]).iloc[1]
    assert found["common_patches"] == 0
    assert np.isnan(found["f1_macro_gain"])
    assert found["f1_macro_low"] < found["f1_macro_high"]


def test_patches_of_one_block_have_a_score_and_no_interval(pair):
    found = ablation_table([row("a", trained(pair[0].assign(block=7)))]).iloc[0]
    assert found["f1_macro"] == pytest.approx(100 * scores(counts(pair[0]).sum(axis=0))["f1_macro"])
    assert np.isnan(found["f1_macro_low"])


def test_a_failed_seed_is_named_and_the_others_count(pair):
    first, second = pair
    table = ablation_table(
        [
            row("a", trained(first), trained(first, seed=1, failure="fold 1: the loss is nan.")),
            row("b", trained(second, failure="fold 1: no memory")),
            row("c", trained(second)),
        ]
    )
    assert table["failure"].tolist() == ["seed 1: fold 1: the loss is nan.", "seed 0: fold 1: no memory", ""]
    assert table["seeds"].tolist() == ["0", "", "0"]
    assert table.loc[0, "f1_macro"] == pytest.approx(100 * scores(counts(first).sum(axis=0))["f1_macro"])
    assert table.loc[1, ["f1_macro", "f1_macro_low", "f1_macro_gain", "seconds"]].isna().all()
    assert table.loc[2, "f1_macro_gain"] > 0
    text = render_text(table, "t", "paper")
    assert "FAILED b: seed 0: fold 1: no memory" in text


@pytest.fixture
def table(pair):
    first, second = pair
    return ablation_table(
        [
            row("A | B <baseline>", trained(first), f1_macro=67.83, miou=60.01, parameters=31.0),
            row("second", trained(second, seconds=7200.0), f1_macro=69.05),
        ]
    )


def test_our_score_and_the_published_one_stand_side_by_side(table):
    ours = table["f1_macro"]
    assert table["f1_macro_minus_paper"].tolist() == pytest.approx([ours[0] - 67.83, ours[1] - 69.05])
    for text in (render_text(table, "t3", "Table III"), render_markdown(table, "t3", "Table III")):
        for expected in (
            f"{ours[0]:.2f}", "67.83", f"{ours[0] - 67.83:+.2f}", "69.05", "F1, Table III", "mIoU, Table III", "31.40",
            "28.1", "60 s", "2.00 h", "31.0", f"[{table['miou_low'][1]:.2f}, {table['miou_high'][1]:.2f}]",
            f"{table['f1_macro_gain'][1]:+.2f}", "fold 1 scored, epoch chosen on the test fold itself",
        ):  # fmt: skip
            assert expected in text.replace("Contiguous", "contiguous")


def test_other_ways_of_predicting_stand_beside_the_plain_one(pair):
    first, second = pair
    ways = {"f1_macro_head_average": 0.70, "miou_head_average": 0.60}
    one = row("one head", trained(first))
    several = [replace(trained(second, seed=s), ways={n: v + s / 10 for n, v in ways.items()}) for s in (0, 1)]
    table = ablation_table([one, row("three heads", *several)], resamples=20)
    assert table["f1_macro_head_average"].tolist() == pytest.approx([np.nan, 75.0], nan_ok=True)
    assert table["miou_head_average"].tolist() == pytest.approx([np.nan, 65.0], nan_ok=True)
    text = render_markdown(table, "heads", "paper")
    assert "F1, mean of the heads" in text
    assert " 75.00 |" in text
    assert "turned" not in text


def test_the_columns_of_the_text_are_aligned(table):
    lines = render_text(table, "t", "paper").splitlines()[2:6]
    assert len({len(line) for line in lines}) == 1


def test_names_cannot_break_the_markdown_or_the_page(table):
    markdown = render_markdown(table, "t", "paper")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    page = render_html(table, "t", "paper", b"png")
    assert "&lt;baseline&gt;" in page
    assert "<baseline>" not in page
    assert "data:image/png;base64,cG5n" in page


def test_several_folds_are_told_in_words(table):
    assert "contiguous folds, folds 1 and 3 scored" in render_text(table.assign(folds="1,3"), "t", "paper")
    assert "folds 1, 2 and 4 scored" in render_text(table.assign(folds="1,2,4"), "t", "paper")
    assert "all folds scored" in render_text(table.assign(folds="all"), "t", "paper")


def test_rows_of_several_protocols_say_each_its_own(table):
    mixed = table.assign(scheme=["contiguous", "random"])
    text = render_text(mixed, "t", "paper")
    assert "rows of different protocols" in text
    assert "random folds, fold 1 scored" in text


def test_the_figure_has_a_dot_an_interval_and_the_published_point_of_every_row(table):
    for axis, name in zip(ablation_figure(table, "t", "Table III").axes, ("f1_macro", "miou"), strict=True):
        ours, published = axis.lines
        assert ours.get_xdata() == pytest.approx(table[name])
        np.testing.assert_equal(published.get_xdata(), table[f"paper_{name}"].to_numpy())
        ends = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
        assert ends == table[[f"{name}_low", f"{name}_high"]].to_numpy().tolist()


def test_files_are_replaced_whole(tmp_path):
    folder = tmp_path / "ablation" / "t"
    write_files(folder, {"table.txt": b"a long old table", "figure.png": b"x"})
    (tmp_path / "kept").hardlink_to(folder / "table.txt")
    write_files(folder, {"table.txt": b"new"})
    assert (folder / "table.txt").read_bytes() == b"new"
    assert (tmp_path / "kept").read_bytes() == b"a long old table"
    assert sorted(path.name for path in folder.iterdir()) == ["figure.png", "table.txt"]


# ---- the grid


def resolve(*rows, seeds=None, bands=None, evaluation=None, **training):
    from landslide.bands.formulas import BandSettings
    from landslide.training.fold import TrainingSettings
    from pipelines.grid import RowSettings
    from pipelines.grid import resolve as resolve_grid
    from steps.settings import EvaluationSettings, FoldSettings

    common = TrainingSettings(**{"model": "unet", "bands": "14", "model_options": {"width": 4}, **training})
    return resolve_grid(
        [RowSettings(**row) for row in rows],
        bands=BandSettings(**bands or {}),
        folds=FoldSettings(),
        training=common,
        evaluation=EvaluationSettings(**evaluation or {}),
        seeds=seeds,
    )


def test_a_row_changes_what_it_names_and_keeps_the_rest():
    plain, changed = resolve(
        {"name": "plain"},
        {
            "name": "changed",
            "training": {"loss": "iou", "augmentation": {"flips": True}, "model_options": {"heads": 3}},
            "folds": {"trained": [2]},
            "bands": {"median_kernel": 5},
        },
        epochs=7,
    )
    (training,) = changed.trainings
    assert (training.loss, training.epochs, training.bands) == ("iou", 7, "14")
    assert training.augmentation.flips
    assert training.augmentation.plain_epochs == plain.trainings[0].augmentation.plain_epochs
    assert training.model_options == {"width": 4, "heads": 3}
    assert (changed.folds.trained, changed.bands.median_kernel) == ((2,), 5)
    assert (plain.folds.trained, plain.trainings[0].model_options) == (None, {"width": 4})


def test_a_row_changes_the_common_schedule_or_names_another_kind():
    cosine = CosineSchedule(peak=0.01, warmup_epochs=2)
    same, lower, steps = resolve(
        {"name": "same"},
        {"name": "lower", "training": {"schedule": {"peak": 0.001}}},
        {"name": "steps", "training": {"schedule": {"kind": "steps", "rates": [[7, 0.1]]}}},
        schedule=cosine,
    )
    assert same.trainings[0].schedule == cosine
    assert lower.trainings[0].schedule == CosineSchedule(peak=0.001, warmup_epochs=2)
    assert steps.trainings[0].schedule == StepSchedule(rates=((7, 0.1),))


def test_a_row_without_augmentation_needs_none_of_the_common_values():
    (found,) = resolve(
        {"name": "r", "training": {"augmentation": {"mode": "none"}}}, augmentation=AugmentationSettings(flips=True)
    )
    assert found.trainings[0].augmentation == AugmentationSettings(mode="none")


def test_a_common_seed_beside_seeds_is_refused():
    with pytest.raises(ConfigurationError, match=r"training\.seed is 4 and has no effect: the grid has seeds"):
        resolve({"name": "r"}, seeds=[1, 2], seed=4)


def test_another_network_starts_without_the_options_of_the_common_one():
    (found,) = resolve({"name": "r", "training": {"model": "rau_net", "bands": "23"}}, model_options={"heads": 3})
    assert found.trainings[0].model_options == {}
    assert found.parameters == 24_876_294


def test_the_rgb_set_has_its_nine_bands_where_the_global_ones_are_computed():
    of_fourteen, of_nine = resolve(
        {"name": "14"}, {"name": "rgb", "bands": {"global_rgb": True}, "training": {"bands": "rgb"}}
    )
    assert of_fourteen.parameters - of_nine.parameters == 5 * 9 * 4  # 3 x 3 weights a band in the first layer
    with pytest.raises(ConfigurationError, match=r"\(rgb\).*red_global"):
        resolve({"name": "rgb", "training": {"bands": "rgb"}})


@pytest.mark.parametrize(
    ("evaluation", "training"),
    [
        ({"test_time_augmentation": "rotations"}, {}),
        ({}, {"prediction": {"augmentation": "flips_and_rotations"}}),
        ({}, {"augmentation": {"mode": "consistent"}}),
    ],
)
def test_rotations_need_both_gradients_before_anything_is_trained(evaluation, training):
    both, one = {"name": "both"}, {"name": "one", "training": {"bands": ["B4", "gradient_x"], **training}}
    with pytest.raises(ConfigurationError, match=r"rows\[1\] \(one\): .*only gradient_x"):
        resolve(both, one, evaluation=evaluation)
    assert len(resolve(both, {**one, "training": {"bands": ["B4", "gradient_x"]}})) == 2


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"model_options": {"attention": "multi_head"}, "crop": 64}, "got 64 x 64"),
        ({"model_options": {"heads": 3}, "head_weights": {"256": 0, "128": 0, "64": 0}}, "has a weight"),
        ({"model": "lite_unet", "model_options": {"encoder_weights": "ImageNet"}}, "encoder_weights is 'ImageNet'"),
        ({"model": "smp:Unet:resnet18", "model_options": {"encoder_weights": "imagnet"}}, "no weights 'imagnet'"),
    ],
)
def test_what_would_fail_in_the_first_batch_fails_before_any_row_is_trained(training, named):
    with pytest.raises(ConfigurationError, match=rf"rows\[0\] \(a\): .*{named}"):
        resolve({"name": "a", "training": training})


def test_every_row_is_trained_with_every_seed():
    rows = resolve({"name": "a"}, {"name": "b", "training": {"loss": "iou"}}, seeds=[3, 5])
    assert [[training.seed for training in row.trainings] for row in rows] == [[3, 5], [3, 5]]
    assert [training.loss for training in rows[1].trainings] == ["iou", "iou"]


@pytest.mark.parametrize(
    ("last", "seeds", "expected"),
    [
        (
            {"name": "x", "training": {"epochz": 3}},
            None,
            [r"rows\[1\] \(x\)", "training.epochz", "Did you mean 'epochs'"],
        ),
        ({"name": "x", "training": {"augmentation": {"mod": 1}}}, None, ["training.augmentation.mod", "'mode'"]),
        ({"name": "x", "training": {"schedule": {"kind": "cosine", "peek": 1}}}, None, ["schedule.peek", "'peak'"]),
        (
            {"name": "x", "training": {"schedule": {"kind": "line"}}},
            None,
            ["training.schedule is", "'steps', 'cosine'"],
        ),
        ({"name": "x", "training": {"schedule": {"kind": "cosine", "rates": [[1, 1]]}}}, None, ["schedule.rates"]),
        ({"name": "x", "training": {"schedule": "cosine"}}, None, [r"\(x\)", "schedule is 'cosine'", "kind: cosine"]),
        ({"name": "x", "training": {"learning_rates": [[1, 1]]}}, None, ["training.learning_rates", "kind: steps"]),
        ({"name": "x", "training": {"epochs": "many"}}, None, [r"\(x\)", "training.epochs is 'many'"]),
        ({"name": "x", "training": {"epochs": 0}}, None, [r"\(x\)", "training.epochs is 0"]),
        ({"name": "x", "training": {"loss": "guess"}}, None, [r"\(x\)", "no loss 'guess'"]),
        ({"name": "x", "training": {"model_options": {"depth": 9}}}, None, [r"\(x\)", "depth"]),
        ({"name": "x", "training": {"bands": "99"}}, None, [r"\(x\)", "band group '99'"]),
        ({"name": "x", "folds": {"schema": "random"}}, None, ["folds.schema", "'scheme'"]),
        ({"name": "x", "folds": {"trained": [6]}}, None, [r"\(x\)", "from 1 to 5"]),
        ({"name": "x", "bands": {"blurr": "box"}}, None, ["bands.blurr", "'blur'"]),
        ({"name": "x", "bands": {"stored": ["B4"]}}, None, ["bands.stored", "common"]),
        ({"name": "x", "paper": {"f1": 70}}, None, [r"row 'x'", "paper.f1", "f1_macro"]),
        ({"name": "x", "paper": {"miou": 160}}, None, ["paper.miou is 160", "percent"]),
        ({"name": "First!"}, None, ["the name of another row, 'first'"]),
        ({"name": "?"}, None, ["letters or digits"]),
        ({"name": "x"}, [1, 1], [r"seeds is \[1, 1\]"]),
        ({"name": "x", "training": {"seed": 4}}, [1, 2], ["sets training.seed"]),
    ],
)
def test_a_fault_of_the_last_row_is_found_before_anything_is_trained(last, seeds, expected):
    with pytest.raises(ConfigurationError) as caught:
        resolve({"name": "first"}, last, seeds=seeds)
    for text in expected:
        assert caught.match(text)


def test_a_grid_without_rows_is_refused():
    with pytest.raises(ConfigurationError, match="no rows"):
        resolve()


# ---- the pipeline


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory) -> Path:
    from landslide.data.demo import generate

    folder = tmp_path_factory.mktemp("ablation") / "data"
    generate(folder, scenes=((2, 3), (2, 2)))
    return folder


@pytest.fixture
def client(stack):
    return runs.connect(default_tracking_uri())


@pytest.fixture
def trainings(monkeypatch) -> list[str]:
    """The losses of the folds that are really trained, as they are."""
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
    }
    path.write_text(yaml.safe_dump({"parameters": {**common, "rows": list(rows), **parameters}}))
    return path


def run_ablation(config: Path) -> None:
    from pipelines.ablation import ablation_pipeline

    ablation_pipeline.with_options(config_path=str(config))()


def read_report() -> pd.DataFrame:
    return pd.read_csv(home() / "reports" / "ablation" / "tiny" / "table.csv", keep_default_na=False, na_values=[""])


def test_a_table_shares_goes_on_after_a_failure_and_says_what_the_runs_say(tiny_set, client, trainings, tmp_path):
    from pipelines.configured import PipelineError

    # the training pipeline trains what is to be the first row
    quick = {"epochs": 1, "schedule": {"kind": "steps", "rates": [[1, 0.003]]}}
    folds = {"n_folds": 2, "trained": [1]}
    pipeline_runs.run_pipeline(
        pipeline_runs.write_config(tmp_path / "config.yaml", tiny_set, folds=folds, training=quick)
    )
    run = runs.latest_cross_validation(client)
    assert trainings == ["focal_iou"]

    # the second row fails, and the table of the other is there
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

    # mended, it alone is trained
    trainings.clear()
    mended = {"name": "diverging", "training": {"loss": "iou"}}
    run_ablation(write_grid(config, tiny_set, steady, mended))
    assert trainings == ["iou"]
    table = read_report()
    assert table["failure"].isna().all()
    assert table["runs"][0] == run.info.run_id

    # the scores again, from the counts that the folds hold
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

    # and MLflow leads from the table to its rows and back
    (record,) = runs.search(client, f"tags.role = 'ablation' and tags.`runs 2` = 'diverging: {table['runs'][1]}'")
    assert (record.data.tags["ablation"], record.info.status) == ("tiny", "FINISHED")
    assert record.data.metrics["f1_macro.1"] == pytest.approx(table["f1_macro"][0])
    assert "diverging" in record.data.tags["mlflow.note.content"]
    files = {artifact.path for artifact in client.list_artifacts(record.info.run_id)}
    assert files == {"table.csv", "table.txt", "table.md", "table.html", "figure.png"}
    assert client.get_run(table["runs"][1]).data.tags["ablation.tiny"] == "diverging"


def test_every_row_and_seed_has_steps_of_its_own_and_rows_share_what_they_can(stack, tmp_path):
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
def test_a_wrong_grid_is_refused_with_the_row_and_the_key(rows, parameters, expected, stack, tmp_path):
    from pipelines.ablation import ablation_pipeline
    from pipelines.configured import PipelineError

    config = write_grid(tmp_path / "grid.yaml", tmp_path / "nowhere", *rows, **parameters)
    with pytest.raises(PipelineError) as caught:
        ablation_pipeline.with_options(config_path=str(config)).prepare()
    for text in ("grid.yaml", *expected):
        assert text in str(caught.value)
