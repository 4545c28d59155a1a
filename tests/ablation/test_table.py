"""The table of an ablation: its statistics, and its text, page and figure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.ablation.report import ablation_figure, render_html, render_markdown, render_text, write_files
from landslide.ablation.table import AblationRow, TrainedRow, ablation_table
from landslide.metrics.bootstrap import paired_differences, score_intervals
from landslide.metrics.counts import scores

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


def trained(table: pd.DataFrame, *, seed: int = 0, failure: str = "", seconds: float = 60.0) -> TrainedRow:
    if failure:
        return TrainedRow(seed, f"run{seed}", TAGS, pd.DataFrame(), float("nan"), failure)
    return TrainedRow(seed, f"run{seed}", TAGS, table, seconds, "")


def row(name: str, *trainings: TrainedRow, **paper: float) -> AblationRow:
    return AblationRow(name, paper, 31_397_122, 28.1, trainings)


@pytest.fixture
def pair():
    """Two models on the same patches, the second better."""
    random = np.random.default_rng(0)
    first = patches(random)
    true = first["fn"] + first["tp"]
    found = np.maximum(first["tp"], random.binomial(true, 0.8))
    return first, first.assign(tp=found, fn=true - found)


def test_with_one_seed_intervals_equal_the_block_bootstrap(pair):
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


def test_a_row_compared_with_itself_has_no_gain(pair):
    table = ablation_table([row("a", trained(pair[0])), row("again", trained(pair[0]))])
    assert table.loc[1, ["f1_macro_gain", "f1_macro_gain_low", "f1_macro_gain_high"]].tolist() == [0, 0, 0]


def test_the_interval_covers_the_seeds_if_all_patches_are_equal():
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


def test_seeds_and_blocks_are_resampled_independently():
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


def test_seeds_of_two_rows_are_resampled_independently():
    """Equal rows whose seeds differ: a gain can be the difference of the two seeds, with either sign."""
    alike = pd.DataFrame(
        {"number": range(1, 31), "fold": 1, "block": range(30), "tn": 15000, "fp": 384, "fn": 300, "tp": 700}
    )
    seeds = trained(alike), trained(alike.assign(fn=100, tp=900), seed=1)
    spread = np.diff([100 * scores(counts(one.patches).sum(axis=0))["f1_macro"] for one in seeds])[0]
    found = ablation_table([row("a", *seeds), row("b", *seeds)]).iloc[1]
    assert found["f1_macro_gain"] == 0
    assert found[["f1_macro_gain_low", "f1_macro_gain_high"]].tolist() == pytest.approx([-spread, spread])


def test_the_interval_is_that_of_the_mean_over_the_folds():
    """Two folds of one block each: of four equally likely draws one has only fold 1, one only fold 2."""
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


def test_rows_without_shared_patches_are_not_compared():
    random = np.random.default_rng(3)
    other = patches(random).assign(number=lambda table: table["number"] + 100)
    found = ablation_table([row("a", trained(patches(random))), row("b", trained(other))]).iloc[1]
    assert found["common_patches"] == 0
    assert np.isnan(found["f1_macro_gain"])
    assert found["f1_macro_low"] < found["f1_macro_high"]


def test_patches_of_one_block_have_a_score_but_no_interval(pair):
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


def test_our_score_and_the_published_one_are_side_by_side(table):
    ours = table["f1_macro"]
    assert table["f1_macro_minus_paper"].tolist() == pytest.approx([ours[0] - 67.83, ours[1] - 69.05])
    for text in (render_text(table, "t3", "Table III"), render_markdown(table, "t3", "Table III")):
        for expected in (
            f"{ours[0]:.2f}", "67.83", f"{ours[0] - 67.83:+.2f}", "69.05", "F1, Table III", "mIoU, Table III", "31.40",
            "28.1", "60 s", "2.00 h", "31.0", f"[{table['miou_low'][1]:.2f}, {table['miou_high'][1]:.2f}]",
            f"{table['f1_macro_gain'][1]:+.2f}", "fold 1 scored, epoch chosen on the test fold itself",
        ):  # fmt: skip
            assert expected in text.replace("Contiguous", "contiguous")


def test_prediction_variants_are_listed_with_the_plain_one(pair):
    first, second = pair
    variants = {"f1_macro_head_average": 0.70, "miou_head_average": 0.60}
    one = row("one head", trained(first))
    several = [replace(trained(second, seed=s), variants={n: v + s / 10 for n, v in variants.items()}) for s in (0, 1)]
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


def test_names_are_escaped_in_markdown_and_html(table):
    markdown = render_markdown(table, "t", "paper")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    page = render_html(table, "t", "paper", {"scores": b"png"})
    assert "&lt;baseline&gt;" in page
    assert "<baseline>" not in page
    assert "data:image/png;base64,cG5n" in page


def test_several_folds_are_described_in_words(table):
    assert "contiguous folds, folds 1 and 3 scored" in render_text(table.assign(folds="1,3"), "t", "paper")
    assert "folds 1, 2 and 4 scored" in render_text(table.assign(folds="1,2,4"), "t", "paper")
    assert "all folds scored" in render_text(table.assign(folds="all"), "t", "paper")


def test_rows_of_several_protocols_name_their_protocol(table):
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


def test_files_are_replaced_atomically(tmp_path):
    folder = tmp_path / "ablation" / "t"
    write_files(folder, {"table.txt": b"a long old table", "figure.png": b"x"})
    (tmp_path / "kept").hardlink_to(folder / "table.txt")
    write_files(folder, {"table.txt": b"new"})
    assert (folder / "table.txt").read_bytes() == b"new"
    assert (tmp_path / "kept").read_bytes() == b"a long old table"
    assert sorted(path.name for path in folder.iterdir()) == ["figure.png", "table.txt"]
