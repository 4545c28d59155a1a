"""Comparison of champion and challenger on patches that neither has seen, by blocks, and the decision."""

import io
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import f1_score

from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings
from landslide.errors import ComparisonError, ConfigurationError, DataError
from landslide.folds.table import extend_fold_table, removed_patches
from landslide.inference.ensemble import Ensemble, Member
from landslide.inference.prediction import PredictionSettings
from landslide.metrics.counts import patch_counts
from landslide.models import ModelSpec, build_model
from landslide.retraining.out_of_fold import (
    check_unseen,
    evidence_table,
    model_scores,
    predict_unseen,
    relabelled_patches,
    select_unseen,
)
from landslide.retraining.promotion import DECIDING, PromotionSettings, bootstrap, judge, summary
from tests.support.caches import build_band_cache
from tests.support.patch_tables import as_recorded, build_patch_table, grid_positions, image_names
from tests.support.predictions import predict_rows

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
ALL = {"member_folds": (1, 2, 3), "selected_on_test_fold": False}

# ---- which patches are compared


@dataclass
class Model:
    """A simulated cross-validated model, with the images and positions that each member was trained on."""

    previous: pd.DataFrame
    members: set[int]
    selected_on_test_fold: bool = False
    seen: dict[int, set] = field(default_factory=dict)

    def predictors(self, fold: int) -> list[int]:
        return [fold] if fold in self.members else sorted(self.members)


def traces_of(table: pd.DataFrame) -> list[tuple[str, tuple | None]]:
    """Image and position of every patch."""
    rows = table[["scene", "row", "column"]].to_numpy()
    places = [None if pd.isna(row).any() else tuple(map(int, row)) for row in rows]
    return list(zip(table["image_md5"], places, strict=True))


def train(table: pd.DataFrame, gone: pd.DataFrame, start: Model | None, n_folds: int) -> Model:
    """Record the images and positions that each member, or the member that it started from, was trained on."""
    model = Model(pd.concat([as_recorded(table), as_recorded(gone)], ignore_index=True), set(range(1, n_folds + 1)))
    for member in model.members:
        model.seen[member] = set() if start is None else set(start.seen[member])
        for trace, fold in zip(traces_of(table), table["fold"], strict=True):
            if fold != member:
                model.seen[member] |= set(trace) - {None}
    return model


def a_data_set(rng: np.random.Generator, shelf: list[tuple[str, tuple | None]]) -> pd.DataFrame:
    """Some of all earlier patches, some changed, some new, some twice, sometimes without positions."""
    patches = [patch for patch in shelf if rng.random() < 0.85]
    for i in rng.permutation(len(patches))[: rng.integers(0, 3)]:
        patches[i] = (f"redrawn {rng.integers(1000)}", patches[i][1])
    taken = {place for _, place in patches}
    free = [place for place in grid_positions(6, 6) + grid_positions(3, 3, 2) if place not in taken]
    fresh = [free[i] for i in rng.permutation(len(free))[: rng.integers(1, 6)]]
    patches += [(f"new {rng.integers(10**6)}", None if rng.random() < 0.2 else place) for place in fresh]
    if rng.random() < 0.3:  # a copy of unknown position
        patches.append((patches[rng.integers(len(patches))][0], None))
    placed = [i for i, (_, place) in enumerate(patches) if place is not None]
    unique = {patches[i][1]: i for i in placed}  # a removed patch and its replacement are not present together
    patches = [patch for i, patch in enumerate(patches) if patch[1] is None or unique[patch[1]] == i]
    if rng.random() < 0.5:
        patches = [patches[i] for i in rng.permutation(len(patches))]
    images, positions = zip(*patches, strict=True)
    return build_patch_table(images, None if rng.random() < 0.1 else positions)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_no_compared_patch_was_used_to_train_a_member_that_predicts_it(seed, n_folds):
    rng = np.random.default_rng(seed)
    places = grid_positions(4, 5)
    shelf: list[tuple[str, tuple | None]] = list(zip(image_names(places), places, strict=True))
    shelf += [(shelf[i][0], None) for i in rng.permutation(len(shelf))[:3]]  # copies, likely in other folds
    first = build_patch_table(*zip(*shelf, strict=True))
    folds = np.concatenate([np.arange(n_folds), rng.integers(0, n_folds, len(first) - n_folds)]) + 1
    first = first.assign(fold=folds)
    champion = train(first, first.head(0), None, n_folds)
    for _ in range(4):
        patches = a_data_set(rng, shelf)
        try:
            table = extend_fold_table(patches, champion.previous, n_folds=n_folds)
        except DataError:
            continue
        warm = champion if rng.random() < 0.6 and len(champion.members) == n_folds else None
        challenger = train(table, removed_patches(table, champion.previous), warm, n_folds)
        chosen, new = select_unseen(
            table,
            champion.previous,
            member_folds=champion.members,
            selected_on_test_fold=champion.selected_on_test_fold,
        )
        traces = traces_of(table)
        fold_of_row = table["fold"].to_numpy()
        for i in np.flatnonzero(chosen):
            for model in (champion, challenger):
                for member in model.predictors(fold_of_row[i]):
                    assert not set(traces[i]) & model.seen[member]
            if champion.selected_on_test_fold:
                assert new[i]
                assert traces[i][0] not in set(champion.previous["image_md5"])
        # `check_unseen` agrees; otherwise the run would stop there.
        for fold in set(fold_of_row[chosen].tolist()):
            rows = np.flatnonzero(chosen & (fold_of_row == fold))
            for model in (champion, challenger):
                check_unseen(table, rows, fold if fold in model.members else 0, model.previous, "model")
        previous = set(shelf)
        shelf += [patch for patch in traces if patch not in previous]
        if rng.random() < 0.6:
            champion = challenger
            champion.selected_on_test_fold = rng.random() < 0.2
            if rng.random() < 0.2:
                champion.members = champion.members - {int(rng.integers(1, n_folds + 1))}


def test_all_held_out_and_all_new_patches_are_compared():
    places = grid_positions(2, 3)
    previous = as_recorded(build_patch_table(image_names(places), places).assign(fold=[1, 1, 2, 2, 3, 3]))
    table = build_patch_table([*image_names(places), "new"], [*places, (5, 5, 5)]).assign(fold=[1, 1, 2, 2, 3, 3, 1])
    chosen, new = select_unseen(table, previous, **ALL)
    assert chosen.all()
    assert new.tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"selected_on_test_fold": True}, [False, False, False, True]),
        ({"member_folds": (1, 3)}, [True, False, True, True]),
        ({"member_folds": ()}, [False, False, False, True]),
    ],
)
def test_patches_seen_by_the_champion_are_not_compared(changes, expected):
    previous = as_recorded(build_patch_table("abc").assign(fold=[1, 2, 3]))
    chosen, new = select_unseen(build_patch_table("abcX").assign(fold=[1, 2, 3, 2]), previous, **ALL | changes)
    assert chosen.tolist() == expected
    assert new.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (build_patch_table("abc").assign(fold=[1, 3, 3]), [True, False, True]),  # b moved to another fold
        (build_patch_table("abca").assign(fold=[1, 2, 3, 2]), [False, True, True, False]),  # a occurs twice
        (build_patch_table("abXX").assign(fold=[1, 2, 3, 1]), [True, True, False, False]),  # X is new and occurs twice
        (build_patch_table("abZ").assign(fold=[1, 2, 1]), [True, True, False]),  # c, redrawn, moved to another fold
        (build_patch_table("aYc", [(1, 0, 0), (1, 0, 2), (1, 0, 2)]).assign(fold=[1, 2, 3]), [True, False, False]),
    ],
)
def test_patch_with_two_folds_is_not_compared(table, expected):
    previous = as_recorded(build_patch_table("abc", [(1, 0, 0), (1, 0, 1), (1, 0, 2)]).assign(fold=[1, 2, 3]))
    assert select_unseen(table, previous, **ALL)[0].tolist() == expected


@pytest.mark.parametrize(
    ("image", "place", "fold", "refused"),
    [
        ("a", None, 1, False),  # held out by member 1
        ("a", None, 2, True),
        ("a", None, 0, True),  # all members together have seen it
        ("redrawn", (1, 0, 0), 2, True),  # another image of the same ground
        ("redrawn", (1, 0, 0), 1, False),
        ("redrawn", (1, 0, 9), 2, False),
        ("redrawn", None, 0, False),
    ],
)
def test_training_patch_is_refused_by_image_and_by_position(image, place, fold, refused):
    previous = as_recorded(build_patch_table("ab", [(1, 0, 0), (1, 0, 1)]).assign(fold=[1, 2]))
    table = build_patch_table(["new", image], [(7, 7, 7), place], [11, 12]).assign(fold=[2, 2])
    if not refused:
        check_unseen(table, np.array([0, 1]), fold, previous, "champion")
        return
    message = rf"champion was trained on 1 of the patches to compare \(fold {fold}\): patch 12\."
    with pytest.raises(ComparisonError, match=message):
        check_unseen(table, np.array([0, 1]), fold, previous, "champion")


# ---- prediction out of fold


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Ensemble:
    folder = tmp_path_factory.mktemp("comparison")
    members = []
    for fold in (1, 2):
        torch.manual_seed(fold)
        spec = ModelSpec(name="unet", options={"width": 4}, bands=("B4", "slope"))
        save_file(build_model(spec).state_dict(), folder / f"{fold}.safetensors")
        members.append(Member(fold, spec, 0.5, folder / f"{fold}.safetensors"))
    return Ensemble(members, BandSettings(), CPU)


def whole(batches, cache: BandCache, rows: np.ndarray) -> np.ndarray:
    """Join batches; each patch occurs once, with its own mask."""
    probability = np.full((len(rows), 128, 128), np.nan)
    for part, of_batch, masks in batches:
        assert np.isnan(probability[part]).all()
        probability[part] = of_batch
        np.testing.assert_array_equal(masks, cache.masks[rows[part]])
    return probability


def test_patch_is_predicted_by_its_fold_member_or_else_by_all(ensemble):
    cache = build_band_cache(5)
    table = build_patch_table("abcde").assign(fold=[2, 1, 3, 2, 1])
    rows = np.array([0, 2, 3, 4])
    found = whole(
        predict_unseen(ensemble, cache, table, rows, as_recorded(table.iloc[[0, 1, 3, 4]]), model="champion"),
        cache,
        rows,
    )
    first, second = (predict_rows(m, cache, rows, ("B4", "slope"), device=CPU) for m in ensemble.models)
    assert np.abs(first - second).max() > 0.01
    expected = np.stack([second[0], (first[1] + second[1]) / 2, second[2], first[3]])
    np.testing.assert_allclose(found, expected, atol=2e-4)  # batch sizes differ


def test_member_predicts_out_of_fold_with_its_prediction_settings(ensemble):
    way = PredictionSettings(augmentation="rotations")
    turning = Ensemble([replace(member, prediction=way) for member in ensemble.members], BandSettings(), CPU)
    table, rows = build_patch_table("ab").assign(fold=[2, 3]), np.arange(2)
    cache = build_band_cache(2)
    found = whole(
        predict_unseen(turning, cache, table, rows, as_recorded(table.head(0)), model="champion"), cache, rows
    )
    turned = [predict_rows(m, cache, rows, ("B4", "slope"), device=CPU, prediction=way) for m in ensemble.models]
    np.testing.assert_allclose(found, [turned[1][0], (turned[0][1] + turned[1][1]) / 2], atol=2e-4)
    plain = predict_rows(ensemble.models[1], cache, rows, ("B4", "slope"), device=CPU)
    assert np.abs(found[0] - plain[0]).max() > 0.01


@pytest.mark.parametrize(
    "previous",
    [
        build_patch_table("ab").assign(fold=[1, 1]),  # a was in the training part of member 2
        build_patch_table("bc").assign(fold=[1, 3]),  # there is no member 3, so no member may have seen c
    ],
)
def test_no_member_predicts_a_patch_that_it_was_trained_on(ensemble, previous):
    table = build_patch_table("abc").assign(fold=[2, 1, 3])
    with pytest.raises(ComparisonError, match="The champion was trained on 1 of the patches"):
        list(
            predict_unseen(ensemble, build_band_cache(3), table, np.arange(3), as_recorded(previous), model="champion")
        )


# ---- the bootstrap


def some_evidence(
    n: int, champion: float, challenger: float, *, seed: int = 0, places=None, spread: float = 0.3
) -> pd.DataFrame:
    """Evidence on n patches, in blocks of 4 x 4 if `places` is given; the models detect these shares of the landslides.

    Neighbours and both models share the difficulty of a patch.
    """
    rng = np.random.default_rng(seed)
    places = [(scene, 0, 0) for scene in range(n)] if places is None else places
    table = build_patch_table([str(i) for i in range(n)], places).assign(fold=1)
    landslides = rng.integers(50, 500, n)
    counts = {}
    hardness = rng.normal(0, spread, n)
    for model, share in (("champion", champion), ("challenger", challenger)):
        hits = np.round(landslides * np.clip(share + hardness, 0, 1)).astype(np.int64)
        alarms = rng.integers(20, 60, n)
        rest = 128 * 128 - landslides - alarms
        counts[model] = np.stack([rest, alarms, landslides - hits, hits], axis=1).reshape(n, 2, 2)
    return evidence_table(table, np.arange(n) % 3 == 0, np.zeros(n, bool), counts)


def test_resampled_f1_pools_the_pixels_of_the_drawn_blocks():
    rng = np.random.default_rng(3)
    places = [(1, 0, 0), (1, 0, 1), (1, 0, 4)]  # two blocks: the first holds two tiles
    masks = (rng.random((3, 16, 16)) < 0.2).astype(np.uint8)
    probability = {m: rng.random(masks.shape) * (0.6 + 0.4 * masks) for m in ("champion", "challenger")}
    counts = {model: patch_counts(p, masks) for model, p in probability.items()}
    evidence = evidence_table(build_patch_table("abc", places).assign(fold=1), *np.zeros((2, 3), bool), counts)
    assert evidence["block"].tolist() == [0, 0, 1]

    def f1(model: str, rows: list[int], average: str) -> float:
        return f1_score(masks[rows].ravel(), probability[model][rows].ravel() >= 0.5, average=average)

    averages = {"f1_landslide": "binary", "f1_macro": "macro"}
    differences = bootstrap(evidence, resamples=400, seed=1)
    for name, average in averages.items():
        assert model_scores(evidence, "champion")[name] == pytest.approx(f1("champion", [0, 1, 2], average))
        possible = [
            f1("challenger", rows, average) - f1("champion", rows, average)
            for rows in ([0, 1, 0, 1], [0, 1, 2], [2, 2])
        ]
        distances = np.abs(differences[name].to_numpy()[:, None] - possible)
        assert distances.min(axis=1).max() < 1e-12
        shares = np.bincount(distances.argmin(axis=1), minlength=3) / 400
        np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.08)


def test_equal_neighbours_do_not_narrow_the_interval():
    """Sixteen equal patches per block count as one: resampled by patch, the interval would be four times too narrow."""
    separate = some_evidence(20, 0.5, 0.55, seed=2)
    places = [place for scene in range(20) for place in grid_positions(4, 4, scene)]
    cells = [column for column in separate if column.startswith("ch")]
    counts = {
        model: np.repeat(separate[[c for c in cells if c.startswith(model)]].to_numpy(), 16, axis=0).reshape(-1, 2, 2)
        for model in ("champion", "challenger")
    }
    images = [str(i) for i in range(320)]
    blocks, singles = (
        evidence_table(build_patch_table(images, p).assign(fold=1), *np.zeros((2, 320), bool), counts)
        for p in (places, None)
    )
    assert (blocks["block"].nunique(), singles["block"].nunique()) == (20, 320)
    widths = [bootstrap(e, resamples=500)["f1_landslide"].std() for e in (separate, blocks, singles)]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)
    assert widths[1] / widths[2] == pytest.approx(4, rel=0.25)


def test_patches_without_position_are_separate_blocks():
    table = build_patch_table("abcde", [(1, 0, 0), None, (1, 0, 1), None, (1, 0, 5)]).assign(fold=1)
    none = np.zeros((5, 2, 2), np.int64)
    block = evidence_table(table, *np.zeros((2, 5), bool), {"champion": none, "challenger": none})["block"].tolist()
    assert block[0] == block[2]
    assert len(set(block)) == 4


def test_evidence_on_no_patches_has_no_rows():
    nothing = dict.fromkeys(("champion", "challenger"), np.zeros((0, 2, 2), np.int64))
    evidence = evidence_table(build_patch_table([]).assign(fold=[]), *np.zeros((2, 0), bool), nothing)
    assert len(evidence) == 0
    assert {"block", "champion_true_positives", "challenger_true_negatives"} <= set(evidence)
    assert patch_counts(np.zeros((0, 8, 8)), np.zeros((0, 8, 8))).shape == (0, 2, 2)


def test_both_models_are_scored_on_the_same_draw():
    """Difficulty that both models share cancels out; unpaired, its spread would widen the difference."""
    evidence = some_evidence(60, 0.5, 0.53, seed=4, spread=0.2)
    paired = bootstrap(evidence, resamples=500)["f1_landslide"].std()
    swapped = evidence.copy()
    columns = [c for c in evidence if c.startswith("challenger_")]
    swapped[columns] = evidence[columns].to_numpy()[np.random.default_rng(0).permutation(60)]
    assert paired < 0.3 * bootstrap(swapped, resamples=500)["f1_landslide"].std()


def test_bootstrap_is_reproducible_by_its_seed():
    evidence = some_evidence(20, 0.5, 0.6)
    first = bootstrap(evidence, resamples=100, seed=7)
    assert first.equals(bootstrap(evidence, resamples=100, seed=7))
    assert not first.equals(bootstrap(evidence, resamples=100, seed=8))
    assert list(first) == list(DECIDING)
    # A table that was saved as CSV, as between steps, gives the same result.
    assert first.equals(bootstrap(pd.read_csv(io.StringIO(evidence.to_csv(index=False))), resamples=100, seed=7))


def test_interval_covers_the_true_difference_at_its_nominal_rate():
    truth = some_evidence(20000, 0.5, 0.55, seed=10**6)
    true = model_scores(truth, "challenger")["f1_landslide"] - model_scores(truth, "champion")["f1_landslide"]
    rng = np.random.default_rng(0)
    cells = [column for column in truth if column.startswith("ch")]
    covered = 0
    for trial in range(80):
        sample = truth.iloc[rng.integers(0, len(truth), 40)]
        evidence = sample[cells].assign(block=range(40))
        low, high = np.percentile(bootstrap(evidence, resamples=100, seed=trial)["f1_landslide"], [10, 90])
        covered += low <= true <= high
    assert 0.68 <= covered / 80 <= 0.9  # 80 % is expected


# ---- the decision


def test_equal_models_have_no_difference_and_the_champion_stays():
    evidence = some_evidence(30, 0.6, 0.6)
    for column in [c for c in evidence if c.startswith("challenger_")]:
        evidence[column] = evidence[column.replace("challenger", "champion")]
    differences = bootstrap(evidence, resamples=200)
    assert (differences == 0).all(axis=None)
    verdict = judge(evidence, differences, PromotionSettings())
    assert not verdict.better
    assert verdict.reason.startswith("not better: f1_landslide ")
    assert "better by more than 0 points in 0.00 % and 0.00 % of the resamples" in verdict.reason


def test_only_a_clearly_better_model_is_promoted():
    for champion, challenger in ((0.4, 0.7), (0.7, 0.4)):
        evidence = some_evidence(30, champion, challenger, spread=0.1)
        verdict = judge(evidence, bootstrap(evidence, resamples=200), PromotionSettings())
        assert verdict.better == (challenger > champion)
        assert verdict.reason.startswith("better: " if verdict.better else "not better: ")
        assert "95 % needed of both" in verdict.reason


@pytest.mark.parametrize(
    ("landslide", "macro", "changes", "better"),
    [
        (95, 95, {}, True),
        (94, 100, {}, False),  # both scores have to be better
        (100, 94, {}, False),
        (94, 94, {"confidence": 0.94}, True),
        (100, 100, {"margin": 0.02}, False),  # better by 0.02, which is not more than 0.02
        (100, 100, {"margin": 0.019}, True),
        (100, 100, {"min_blocks": 31}, False),
        (100, 100, {"min_blocks": 30}, True),
    ],
)
def test_promotion_depends_on_margin_confidence_and_min_blocks(landslide, macro, changes, better):
    """A hundred resamples: this many are better by 0.02, the others worse by 0.02."""
    differences = pd.DataFrame(
        {name: np.where(np.arange(100) < n, 0.02, -0.02) for name, n in zip(DECIDING, (landslide, macro), strict=True)}
    )
    verdict = judge(some_evidence(30, 0.5, 0.6), differences, replace(PromotionSettings(), **changes))
    assert verdict.better == better
    assert verdict.reason


def test_too_few_blocks_refuse_promotion_with_a_reason():
    evidence = some_evidence(4, 0.1, 0.9)
    verdict = judge(evidence, bootstrap(evidence, resamples=100), PromotionSettings())
    assert verdict.reason == "only 4 blocks of tiles (4 patches) can be compared, and promotion.min_blocks is 5"
    assert not verdict.better


def test_summary_reports_all_patches_and_new_patches_separately():
    evidence = some_evidence(30, 0.5, 0.6)
    differences = bootstrap(evidence, resamples=100)
    values = summary(evidence, differences, PromotionSettings(resamples=100))
    assert (values["patches"], values["new_patches"], values["blocks"]) == (30, 10, 30)
    new = evidence[evidence["new"]]
    assert values["new_challenger_miou"] == model_scores(new, "challenger")["miou"]
    for name in DECIDING:
        difference = values[f"challenger_{name}"] - values[f"champion_{name}"]
        assert values[f"{name}_difference"] == pytest.approx(difference)
        assert values[f"{name}_difference_low"] < difference < values[f"{name}_difference_high"]
        assert values[f"{name}_difference_low"] == np.percentile(differences[name], 2.5)
    old = evidence[~evidence["new"]]
    assert not any(name.startswith("new_ch") for name in summary(old, differences, PromotionSettings()))
    assert not any(name.startswith(("relabelled_", "unchanged_")) for name in values)


def test_summary_separates_patches_whose_labels_changed():
    settings = PromotionSettings(resamples=200, seed=3)
    evidence = some_evidence(30, 0.5, 0.6).assign(relabelled=np.arange(30) % 5 == 1)
    evidence["new"] &= ~evidence["relabelled"]
    evidence = pd.read_csv(io.StringIO(evidence.to_csv(index=False)))
    values = summary(evidence, bootstrap(evidence, resamples=200, seed=3), settings)
    parts = {
        "relabelled": evidence[evidence["relabelled"]],
        "unchanged": evidence[~evidence["new"] & ~evidence["relabelled"]],
    }
    assert {name: values[f"{name}_patches"] for name in parts} == {"relabelled": 6, "unchanged": 16}
    for name, part in parts.items():
        for score in DECIDING:
            one, other = (model_scores(part, model)[score] for model in ("champion", "challenger"))
            assert values[f"{name}_champion_{score}"] == one
            assert values[f"{name}_{score}_difference"] == pytest.approx(other - one)
            drawn = bootstrap(part, resamples=200, seed=3)[score]
            assert values[f"{name}_{score}_difference_low"] == pytest.approx(np.percentile(drawn, 2.5))
            assert values[f"{name}_{score}_difference_high"] == pytest.approx(np.percentile(drawn, 97.5))


@pytest.mark.parametrize("column", ["without", "none changed"])
def test_older_evidence_and_unchanged_labels_say_nothing_of_changed_ones(column):
    evidence = some_evidence(30, 0.5, 0.6)
    older = evidence.drop(columns="relabelled") if column == "without" else evidence
    differences = bootstrap(older, resamples=100)
    assert judge(older, differences, PromotionSettings()) == judge(evidence, differences, PromotionSettings())
    values = summary(older, differences, PromotionSettings())
    assert values["patches"] == 30
    assert not any(name.startswith(("relabelled_", "unchanged_")) for name in values)


def test_a_single_block_of_changed_labels_has_scores_and_no_interval():
    evidence = some_evidence(30, 0.5, 0.6).assign(relabelled=np.arange(30) == 1, new=False)
    values = summary(evidence, bootstrap(evidence, resamples=100), PromotionSettings(resamples=100))
    assert "relabelled_f1_macro_difference" in values
    assert "relabelled_f1_macro_difference_low" not in values
    assert "unchanged_f1_macro_difference_low" in values


def test_changed_labels_are_recognised_by_image_position_and_number():
    places = grid_positions(1, 5)
    previous = as_recorded(build_patch_table("abcde", places).assign(fold=1, mask_md5=list("ABCDE")))
    older = as_recorded(build_patch_table("b", [places[1]]).assign(fold=1, mask_md5=["x"]))  # departed once, and back
    images, masks = ["a", "b", "c2", "d2", "new"], ["A", "x", "C", "y", "E"]
    table = build_patch_table(images, [*places[:4], (7, 0, 0)]).assign(mask_md5=masks)
    found = relabelled_patches(table, pd.concat([previous, older], ignore_index=True))
    assert found.tolist() == [False, True, False, True, False]
    renumbered = build_patch_table(["a2", "b"], numbers=[1, 9]).assign(mask_md5=["y", "B"])
    without = as_recorded(build_patch_table("ab").assign(fold=1, mask_md5=list("AB")))
    assert relabelled_patches(renumbered, without).tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", -0.01),
        ("margin", 1.0),
        ("confidence", 0.4),
        ("confidence", 1.0),
        ("resamples", 99),
        ("min_blocks", 1),
    ],
)
def test_setting_out_of_range_is_a_configuration_error(name, value):
    with pytest.raises(ConfigurationError, match=rf"promotion\.{name} is ") as error:
        PromotionSettings(**{name: value})
    assert error.value.remedy.startswith("Set it to ")
