"""The measurement of the choice of labels: its record, the page that shows it, and how patches are uncovered."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from landslide.bands.build import ensure_cache
from landslide.data.digests import directory_digest
from landslide.data.patches import write_array
from landslide.data.table import patch_table
from landslide.folds.schemes import assign
from landslide.metrics.bootstrap import difference_draws
from landslide.metrics.counts import scores
from tests.support.experiments import load
from tests.support.map_models import ground

choice = load("label_choice")


@pytest.fixture(scope="module")
def made_up():
    """A record in which every strategy gains with each label: `next` most, then coverage."""
    rng = np.random.default_rng(0)
    trainings = []
    for seed in choice.TEST_FOLDS:
        hits = rng.integers(100, 900, 40)
        for strategy, share in choice.wanted_trainings():
            missed = 5 + 60 * {"next": 1, "coverage": 2}.get(strategy, 4) * (100 - share) // 100 + seed
            counts = np.column_stack([rng.integers(0, 20, 40), np.minimum(hits, missed), np.maximum(hits - missed, 0)])
            whole = np.column_stack([128**2 - counts.sum(axis=1), counts]).sum(axis=0).reshape(2, 2)
            trainings.append({"seed": seed, "strategy": strategy, "share": share, "scores": scores(whole)})
            trainings[-1] |= {"counts": counts.tolist(), "labelled": list(range(share)), "epochs": 400 // share}
            trainings[-1] |= {"processor_seconds": 200.0, "choice_seconds": 4.0}
    blocks = (np.arange(40) // 4).tolist()
    tests = {str(seed): {"fold": f, "test": list(range(40)), "blocks": blocks} for seed, f in choice.TEST_FOLDS.items()}
    return {"data_version": "0.dir", "budget": 4800, "torch": "2", "tests": tests, "trainings": trainings}


def test_the_page_shows_the_record(made_up):
    page = choice.PAGE.read_text()
    assert page.count("<!-- choice: ") == 5
    assert choice.filled(page, made_up) != page
    if choice.RECORD.exists():
        record = json.loads(choice.RECORD.read_text())
        assert choice.filled(page, record) == page
        assert choice.IMAGE.exists()
        assert record["budget"] == choice.BUDGET
        assert {tested["fold"] for tested in record["tests"].values()} == set(choice.TEST_FOLDS.values())
        for one in record["trainings"]:
            counts = choice.counts_of(record, one["strategy"], one["share"])
            pooled = scores(counts[0][counts[1] == choice.TEST_FOLDS[one["seed"]]].sum(axis=0))
            assert {name: round(pooled[name], 6) for name in choice.SCORES}.items() <= one["scores"].items()
    else:
        assert page.count("Not measured yet.") == 5


def test_scores_and_differences_are_means_of_the_seeds(made_up):
    for share in choice.SHARES:
        recorded = [one["scores"]["f1_macro"] for one in choice.of(made_up, "coverage", share)]
        assert len(recorded) == 2
        assert choice.mean_scores(made_up, "coverage", share)["f1_macro"] == pytest.approx(np.mean(recorded))
    assert len(np.unique(choice.counts_of(made_up, "next", 20)[2])) == 20  # ten blocks in each of two folds
    value, low, high = choice.difference(made_up, ("random", 20), ("next", 20))["f1_landslide"]
    of_seeds = [
        one["scores"]["f1_landslide"] - other["scores"]["f1_landslide"]
        for one, other in zip(choice.of(made_up, "next", 20), choice.of(made_up, "random", 20), strict=True)
    ]
    assert value == pytest.approx(np.mean(of_seeds))
    assert low < value < high


def test_the_interval_is_the_paired_bootstrap_of_the_blocks(made_up):
    """With one seed it is that of `difference_draws`."""
    one = {**made_up, "trainings": [each for each in made_up["trainings"] if each["seed"] == 1]}
    first, second = (choice.counts_of(one, strategy, 36) for strategy in ("random", "next"))
    draws = difference_draws(first[0], second[0], first[2])["f1_macro"]
    found = choice.difference(one, ("random", 36), ("next", 36))["f1_macro"]
    np.testing.assert_allclose(found[1:], np.percentile(draws, [2.5, 97.5]))


def test_the_share_that_is_needed(made_up):
    assert choice.first_share({5: -0.2, 10: -0.02, 20: -0.009, 36: -0.001, 60: 0.01}) == "20 %"
    assert choice.first_share({5: -0.001, 10: -0.02, 20: 0, 36: -0.02, 60: 0}) == "60 %"
    assert choice.first_share({5: 0, 10: 0, 20: 0, 36: 0, 60: -0.02}) == "100 %"
    assert choice.first_share(dict.fromkeys((5, 10, 20, 36, 60), 0)) == "5 %"
    lines = choice.needed(made_up).splitlines()[2:]
    assert len(lines) == 6
    for line in lines:
        title, by_means, by_intervals = (cell.strip(" %") for cell in line.strip("|").split("|"))
        assert int(by_means) <= int(by_intervals), title


def test_the_packed_record_is_the_record(made_up):
    text = choice.packed(made_up)
    assert json.loads(text) == made_up
    assert len(text.splitlines()) == len(made_up["trainings"]) + 3


def test_trainings_from_random_weights_are_added_to_the_record_of_the_same_data(made_up, tmp_path):
    for seed in choice.TEST_FOLDS:
        (alike,) = [one for one in choice.of(made_up, "random", 20) if one["seed"] == seed]
        worse = [[0, missed + hits // 2, hits - hits // 2] for _, missed, hits in alike["counts"]]
        training = {**alike, "strategy": choice.SCRATCH, "counts": worse, "settings": {"epochs": 20}}
        training |= dict.fromkeys(("training_patches", "epoch", "threshold", "scores_half"), 0)
        training |= {"data_version": "0.dir", "budget": 4800, **made_up["tests"][str(seed)]}
        (tmp_path / f"seed{seed}-scratch-020.json").write_text(json.dumps(training))
    record = {**made_up, "trainings": list(made_up["trainings"])}
    choice.add_scratch(record, tmp_path)
    choice.add_scratch(record, tmp_path)  # again: nothing twice
    assert len(record["trainings"]) == len(made_up["trainings"]) + 2
    (line,) = choice.pretraining(record).splitlines()[2:]
    gain = choice.difference(record, (choice.SCRATCH, 20), ("random", 20))["f1_landslide"]
    assert line.startswith("| 20 % | ")
    assert line.endswith(f"| {choice.points(gain)} |")
    assert gain[1] > 0
    assert choice.filled(choice.PAGE.read_text(), record)
    (tmp_path / "seed0-scratch-020.json").write_text(json.dumps({**training, "data_version": "1.dir"}))
    with pytest.raises(SystemExit, match="other values of data_version"):
        choice.add_scratch(record, tmp_path)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Seed 0 on 60 small images of dark ground with bright landslides, with trainings of 8 patches."""
    folder = tmp_path_factory.mktemp("choice")
    for number in range(1, 61):
        image, mask = ground(128, 128, seed=number)
        for kind, name, values in (("img", "image", 200 * image.transpose(1, 2, 0)), ("mask", "mask", mask)):
            (folder / "data/TrainData" / kind).mkdir(parents=True, exist_ok=True)
            write_array(folder / f"data/TrainData/{kind}/{name}_{number}.h5", kind, values)
    table = patch_table(folder / "data", positions="landslide4sense")
    digest = directory_digest(folder / "data")[0]
    cache = ensure_cache(folder / "caches", folder / "data", table, digest, choice.BANDS)
    table = table.assign(fold=assign(table["number"].tolist(), scheme="contiguous"), cache_row=range(len(table)))
    return choice.Experiment(folder / "data", folder, table, cache, 0, 8, digest)


@pytest.mark.soak
def test_random_weights_get_the_labels_of_the_random_strategy(experiment):
    experiment.scratch(20)
    trained = json.loads(experiment.path(choice.SCRATCH, 20).with_suffix(".json").read_text())
    order = choice.rank_at_random(np.zeros(len(experiment.pool), bool), experiment.number(20), seed=0)
    assert trained["labelled"] == experiment.numbers(np.isin(np.arange(len(experiment.pool)), order))
    assert trained["settings"]["model_options"] == {}
    assert choice.configured().model_options == {"encoder_weights": "imagenet"}


def test_the_record_is_of_the_present_settings():
    recorded = json.loads(choice.RECORD.read_text())["settings"]
    present = json.loads(json.dumps(asdict(choice.configured())))
    recorded["augmentation"] = present["augmentation"] | recorded["augmentation"]
    assert {name: present[name] for name in recorded} == recorded
    newer = [present["augmentation"]["band_gain"], present["frozen_batch_norm_epochs"], present["selection_epochs"]]
    assert newer == [0, 0, None]


def test_strategies_uncover_more_labels_share_by_share(experiment):
    pool = len(experiment.pool)
    assert (pool, len(experiment.test)) == (48, 12)
    assert experiment.test["number"].tolist() == list(range(49, 61))
    order = choice.rank_at_random(np.zeros(pool, bool), pool, seed=0)
    first = np.isin(np.arange(pool), order[:3])
    for strategy in ("random", "coverage"):
        labelled = first
        for share in choice.SHARES[1:-1]:
            more = experiment.choose(strategy, share, labelled, {})
            assert more[labelled].all()
            assert more.sum() == experiment.number(share)
            if strategy == "random":
                assert set(np.flatnonzero(more)) == set(order[: more.sum()])
            rows = experiment.rows(more)
            assert len(rows.selection) >= 2
            used = np.concatenate([rows.training, rows.selection])
            assert sorted(used) == experiment.pool["cache_row"][more].tolist()
            assert not set(rows.test) & set(used)
            labelled = more


def test_a_network_chooses_and_what_is_finished_is_read(experiment, monkeypatch):
    labelled = np.arange(48) % 8 == 0
    start = experiment.train(choice.FIRST, 5, labelled)
    assert start["settings"]["epochs"] == max(3, round(8 / start["training_patches"]))
    assert np.sum(start["counts"], axis=0).tolist() != [0, 0, 0]
    more = experiment.choose("next", 20, labelled, start)
    assert more.sum() == experiment.number(20)
    windows = experiment.windows(experiment.network(start))
    expected = choice.rank_next(windows, labelled, experiment.number(20) - 6).order
    assert set(np.flatnonzero(more & ~labelled)) == set(expected)
    monkeypatch.setattr(choice, "train_fold", None)  # is not called again
    monkeypatch.setattr(choice, "rank_next", None)
    assert experiment.train(choice.FIRST, 5, labelled) == start
    assert (experiment.choose("next", 20, labelled, start) == more).all()
    with pytest.raises(SystemExit, match="other values of labelled"):
        experiment.train(choice.FIRST, 5, more)
    with pytest.raises(SystemExit, match="other values of before"):
        experiment.choose("next", 20, ~more, start)
