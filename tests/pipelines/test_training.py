"""The training pipeline on tiny data: real patches, reruns after a change, failures, bad input."""

import math
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from landslide.cli import main
from landslide.data import demo
from landslide.folds.parts import HoldOut, fold_parts
from landslide.metrics.counts import scores
from landslide.paths import band_caches, default_tracking_uri
from landslide.tracking import descriptions, registry, runs
from tests.support import pipeline_runs
from tests.support.pipeline_runs import write_config

pytestmark = pytest.mark.slow

CONFIGS = sorted((pipeline_runs.ROOT / "configs").glob("*.yaml"))


@pytest.fixture
def data(tiny_set, tmp_path) -> Path:
    """A copy of the tiny set that a test may change."""
    return Path(shutil.copytree(tiny_set, tmp_path / "data"))


@pytest.fixture
def client(stack):
    return runs.connect(default_tracking_uri())


def _parents(client):
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    return client.search_runs([experiment.experiment_id], "tags.role = 'cross_validation'")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_has_known_keys_and_valid_values(path, stack):
    from pipelines.ablation import ablation_pipeline
    from pipelines.mapping import mapping_pipeline
    from pipelines.retraining import retraining_pipeline
    from pipelines.training import training_pipeline

    content = yaml.safe_load(path.read_text())
    pipeline = retraining_pipeline if "pipelines.retraining" in path.read_text() else training_pipeline
    if "scenes" in content["parameters"]:
        pipeline = mapping_pipeline
    if "rows" in content["parameters"]:
        pipeline = ablation_pipeline  # builds the network of every row
    pipeline.with_options(config_path=str(path)).prepare()
    known = {"parameters", "steps", "settings", "enable_cache", "schedule", "retry", "environment"}
    assert set(content) <= known


def test_paper_configuration_trains_on_real_patches(real_data, client, tmp_path):
    sample = real_data / "landslide4sense-sample"
    config = write_config(
        tmp_path / "real.yaml",
        sample,
        data={"positions": "landslide4sense"},
        folds={"n_folds": 2},
        training={"epochs": 1},
    )
    outcome = pipeline_runs.run_pipeline(config)
    assert {"evaluate", "register"} <= outcome.executed
    run = runs.latest_cross_validation(client)
    assert len(runs.fold_runs(client, run.info.run_id)) == 2
    assert 0 <= run.data.metrics["f1_landslide"] <= 1
    table = Path(client.download_artifacts(run.info.run_id, "fold_table.csv", str(tmp_path))).read_text()
    assert len(table.splitlines()) == 28


def test_best_configuration_trains_on_real_patches(real_data, client, tmp_path):
    parameters = yaml.safe_load((pipeline_runs.ROOT / "configs" / "best.yaml").read_text())["parameters"]
    parameters["data"] = {"root": str(real_data / "landslide4sense-sample"), "positions": "landslide4sense"}
    parameters["folds"] = {"n_folds": 2, "trained": [1]}
    parameters["training"] |= {"epochs": 2, "schedule": {"kind": "cosine", "warmup_epochs": 0}}
    assert parameters["training"]["augmentation"]["band_gain"] > 0
    assert parameters["training"]["frozen_batch_norm_epochs"] > 0
    parameters["training"] |= {"frozen_batch_norm_epochs": 1}
    parameters["training"]["augmentation"]["plain_epochs"] = 1
    config = tmp_path / "best.yaml"
    config.write_text(yaml.safe_dump({"parameters": parameters}))
    pipeline_runs.run_pipeline(config)
    run = runs.latest_cross_validation(client)
    assert 0 <= run.data.metrics["f1_landslide"] <= 1
    import mlflow

    model = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}/{run.data.tags['model_version']}")
    with h5py.File(real_data / "landslide4sense-sample/TrainData/img/image_1.h5") as file:
        image = file["img"][:].transpose(2, 0, 1)[None]
    probability = model.predict(image)["probability"]
    assert probability.shape == (1, 128, 128)
    assert probability.std() > 0


def test_rgb_patches_train_with_their_available_bands(data, client, tmp_path):
    for path in (data / "TrainData" / "img").iterdir():
        with h5py.File(path) as file:
            image = file["img"][:][:, :, [3, 2, 1]]
        with h5py.File(path, "w") as file:
            file["img"] = (image * 60).clip(0, 255).astype(np.uint8)
    config = write_config(
        tmp_path / "rgb.yaml",
        data,
        bands={"stored": ["B4", "B3", "B2"]},
        training={"bands": "all", "epochs": 1},
        folds={"n_folds": 2},
        evaluation={"test_time_augmentation": "rotations"},
    )
    pipeline_runs.run_pipeline(config)
    run = runs.latest_cross_validation(client)
    assert 0 < abs(run.data.metrics["tta/f1_macro"] - run.data.metrics["f1_macro"]) < 1
    assert "head_average/f1_macro" not in run.data.metrics  # this network has one head
    version = client.get_model_version(registry.MODEL_NAME, run.data.tags["model_version"])
    import mlflow

    model = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}/{version.version}")
    for dtype in (np.uint8, np.float32, ">f8"):
        assert model.predict(np.zeros((1, 3, 64, 128), dtype))["probability"].shape == (1, 64, 128)


def test_changed_setting_or_patch_reruns_only_dependent_steps(data, client, tmp_path):
    config = tmp_path / "config.yaml"
    pipeline_runs.run_pipeline(write_config(config, data, folds={"n_folds": 2}))

    run_id = runs.latest_cross_validation(client).info.run_id
    evaluated = [run_id, *runs.fold_runs(client, run_id).values()]
    assert not any(client.list_artifacts(one, "figures") for one in evaluated)
    before, versions = pipeline_runs.recorded(client), len(registry.versions(client))
    outcome = pipeline_runs.run_pipeline(write_config(config, data, folds={"n_folds": 2}, evaluation={"figures": True}))
    after = pipeline_runs.recorded(client)
    assert {one for one in after if after[one] != before.get(one)} == {run_id}  # no fold
    assert len(registry.versions(client)) == versions  # the scores are the same, so nothing is registered again
    assert all(client.list_artifacts(one, "figures") for one in evaluated)

    shutil.rmtree(band_caches())  # the step that built the cache is not run again
    outcome = pipeline_runs.run_pipeline(write_config(config, data, folds={"n_folds": 2}, training={"seed": 5}))
    assert len(pipeline_runs.recorded(client).keys() - after.keys()) == 3
    assert outcome.cached == {"build_bands", "split"}
    assert list(band_caches().glob("*/*/manifest.json"))

    with h5py.File(data / "TrainData" / "img" / "image_1.h5", "r+") as file:
        file["img"][0, 0, 0] += 1.0
    outcome = pipeline_runs.run_pipeline(write_config(config, data, folds={"n_folds": 2}))
    assert not outcome.cached
    assert len({run.data.tags["data_version"] for run in _parents(client)}) >= 2


def test_after_a_failed_fold_only_that_fold_is_trained_again(data, client, tmp_path, monkeypatch):
    import steps.train_fold
    from landslide.errors import TrainingError
    from pipelines.configured import PipelineError

    train = steps.train_fold.fit_fold

    def fails_in_fold_1(task, **kwargs):
        if task.label == "fold 1":
            raise TrainingError("the loss of fold 1 is nan.", remedy="Lower the learning rate.")
        return train(task, **kwargs)

    config = write_config(tmp_path / "config.yaml", data, folds={"n_folds": 2}, training={"seed": 30})
    with monkeypatch.context() as broken:
        broken.setattr(steps.train_fold, "fit_fold", fails_in_fold_1)
        with pytest.raises(PipelineError, match=r"train_fold_1.*loss of fold 1 is nan(.|\n)*Lower the learning rate"):
            pipeline_runs.run_pipeline(config)
    statuses = pipeline_runs.last_outcome().statuses
    assert statuses["train_fold_2"] == "completed"
    before = pipeline_runs.recorded(client)
    pipeline_runs.run_pipeline(config)
    run = runs.latest_cross_validation(client)
    children, after = runs.fold_runs(client, run.info.run_id), pipeline_runs.recorded(client)
    assert after[children[1]] != before[children[1]]
    assert after[children[2]] == before[children[2]]
    assert sorted(runs.fold_runs(client, run.info.run_id)) == [1, 2]


def test_only_the_selected_folds_are_trained_scored_and_registered(data, client, tmp_path):
    folds, training = {"n_folds": 3, "trained": [3, 2]}, {"selection": "test_fold"}
    outcome = pipeline_runs.run_pipeline(write_config(tmp_path / "config.yaml", data, folds=folds, training=training))
    assert {name for name in outcome.executed if name.startswith("train_fold")} == {"train_fold_2", "train_fold_3"}
    run = runs.latest_cross_validation(client)
    assert run.data.tags["folds_trained"] == "2,3"
    children = {fold: client.get_run(i) for fold, i in runs.fold_runs(client, run.info.run_id).items()}
    assert sorted(children) == [2, 3]
    expected = np.mean([child.data.metrics["f1_macro"] for child in children.values()])
    assert run.data.metrics["f1_macro"] == pytest.approx(expected)

    members, _ = runs.fetch_members(run.info.run_id, tmp_path)
    assert [member.fold for member in members] == [2, 3]

    def counts(run_id):
        return pd.read_csv(client.download_artifacts(run_id, "confusion_counts.csv")).to_numpy()

    # every pixel of folds 2 and 3 and none of fold 1: recall and precision at 0.5 are those of the pooled counts
    (_, false_alarms), (misses, hits) = sum(counts(child.info.run_id) for child in children.values())
    curve = pd.read_csv(client.download_artifacts(run.info.run_id, "reports/thresholds.csv"))
    usual = curve.iloc[(curve["threshold"] - 0.5).abs().argmin()]
    assert usual["recall"] == pytest.approx(hits / (hits + misses))
    assert usual["precision"] == pytest.approx(hits / (hits + false_alarms))

    for child in (run, *children.values()):
        assert child.data.tags["selection"] == "test_fold"
    for child in children.values():
        # the epoch was chosen on the test fold, so the score of that epoch is the score of the fold
        epoch = int(child.data.tags["selected_epoch"])
        curve = {m.step: m.value for m in client.get_metric_history(child.info.run_id, "validation/f1_macro")}
        assert child.data.metrics["f1_macro"] == pytest.approx(curve[epoch], abs=1e-4)
        assert curve[epoch] == max(curve.values())


def test_cluster_folds_are_scored_in_the_cluster_and_in_another(client, tmp_path):
    data = tmp_path / "data"
    demo.generate(data, scenes=((4, 5),))
    folds = {"scheme": "cluster", "n_folds": 2, "gap": 0, "in_scene_fraction": 0.2, "seed": 3}
    config = write_config(tmp_path / "config.yaml", data, folds=folds)
    pipeline_runs.run_pipeline(config)
    run = runs.latest_cross_validation(client)
    assert run.data.tags["tested_on"] == "another cluster"
    assert run.data.tags["left_out"] == "20 % in scene (seed 3)"
    table = pd.read_csv(client.download_artifacts(run.info.run_id, "fold_table.csv"))
    recorded = []
    for fold, child in runs.fold_runs(client, run.info.run_id).items():
        in_scene = pd.read_csv(client.download_artifacts(child, "in_scene_patches.csv"))
        held_out = fold_parts(table, fold, HoldOut(in_scene_fraction=0.2, seed=3)).in_scene
        assert in_scene["number"].tolist() == table.loc[held_out, "number"].tolist() != []
        counts = in_scene[["tn", "fp", "fn", "tp"]].to_numpy().sum(axis=0).reshape(2, 2)
        metrics = client.get_run(child).data.metrics
        assert metrics["in_scene/f1_macro"] == pytest.approx(scores(counts)["f1_macro"])
        assert metrics["in_scene/f1_macro"] != metrics["f1_macro"]
        recorded.append(metrics["in_scene/f1_landslide_tuned"])
    assert run.data.metrics["in_scene/f1_landslide_tuned"] == pytest.approx(np.mean(recorded))
    version = registry.version(client, run.data.tags["model_version"])
    assert version["tested_on"] == "another cluster"
    assert float(version["f1_macro_in_scene"]) == pytest.approx(run.data.metrics["in_scene/f1_macro"], abs=1e-6)
    assert "in another cluster" in run.data.tags[descriptions.NOTE]
    again = pipeline_runs.run_pipeline(config)
    assert {"measure_bands", "split"} <= again.cached


# ---- settings changed on the command line


def train(config: Path, *changes: str) -> Result:
    words = [word for change in changes for word in ("--set", change)]
    return CliRunner().invoke(
        main, ["train", "-c", str(config), *words], env={"LANDSLIDE_ROOT": str(pipeline_runs.ROOT)}
    )


def test_changed_settings_are_trained_and_recorded_as_if_they_were_in_the_file(data, client, tmp_path):
    config = write_config(tmp_path / "config.yaml", data, folds={"n_folds": 3})
    before = config.read_text()
    schedule = "training.schedule={kind: cosine, peak: 2.0e-3, warmup_epochs: 0}"
    result = train(config, "training.epochs=1", "training.model_options.width=5", schedule, "folds.n_folds=2")
    assert result.exit_code == 0, result.output
    assert config.read_text() == before
    run = runs.latest_cross_validation(client)
    assert len(runs.fold_runs(client, run.info.run_id)) == 2
    recorded = Path(client.download_artifacts(run.info.run_id, "configuration.yaml", str(tmp_path / "recorded")))
    parameters = yaml.safe_load(recorded.read_text())["parameters"]
    assert parameters["training"]["epochs"] == 1
    assert parameters["training"]["model_options"] == {"width": 5}
    assert parameters["training"]["schedule"]["peak"] == 0.002
    assert parameters["training"]["crop"] == 32
    written = write_config(tmp_path / "written.yaml", data)
    written.write_text(yaml.safe_dump({"parameters": parameters}))
    assert not pipeline_runs.run_pipeline(written).executed & {"build_bands", "split"}
    assert runs.latest_cross_validation(client).info.run_id == run.info.run_id


@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        (
            "training.epochz=1",
            1,
            ["--set training.epochz=1: unknown key parameters.training.epochz", "Did you mean 'ep"],
        ),
        ("trainin.epochs=1", 1, ["unknown key parameters.trainin", "'training'"]),
        ("training.epochs=many", 1, ["parameters.training.epochs is 'many'"]),
        ("training.epochs=0", 1, ["training.epochs", "1 or more"]),
        ("training.bands.stored=1", 1, ["parameters.training.bands is '14'", "--set training.bands=VALUE"]),
        ("training.epochs", 2, ["'training.epochs' is not KEY=VALUE"]),
        ("=3", 2, ["'=3' is not KEY=VALUE"]),
        ("training={epochs: 1, epochs: 2}", 2, ["the key 'epochs' occurs twice", 'in "training", line 1']),
        ("training.seed=2026-02-30", 2, ["not a value of YAML", "training.seed"]),
        ("training.epochs=[", 2, ["not a value of YAML"]),
    ],
)
def test_a_wrong_change_is_refused_by_name_before_the_first_step(client, tmp_path, change, code, expected):
    config = write_config(tmp_path / "config.yaml", tmp_path / "nowhere")
    result = train(config, change)
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    for text in expected:
        assert text in result.stderr
    if code == 1:
        assert f"{config}" in result.stderr
    assert "nowhere" not in result.stderr


# ---- bad input: the error names cause and remedy, and nothing is recorded


def _message(config: Path) -> str:
    from pipelines.configured import PipelineError

    with pytest.raises(PipelineError) as caught:
        pipeline_runs.run_pipeline(config)
    return str(caught.value)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"model": "rau_nett"}, "There is no model 'rau_nett'"),
        ({"model": "unet", "model_options": {"widht": 4}}, "widht"),
        ({"model": "unet", "model_options": {"width": 0}}, "width is 0"),
        ({"model": "smp:Unet"}, "no name of a peer network"),
        ({"model": "unet", "model_options": {"attention": "multi_head", "patch_size": 64}}, "64 x 64"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_the_first_step(stack, tmp_path, training, expected):
    nowhere = tmp_path / "nowhere"  # the first step would look for it
    training = {"crop": None, "model_options": {}, **training}
    message = _message(write_config(tmp_path / "config.yaml", nowhere, training=training))
    assert expected in message
    assert "step" not in message
    assert "nowhere" not in message


def test_a_training_beyond_the_limit_for_a_cpu_is_refused_before_a_run_is_recorded(data, client, tmp_path, monkeypatch):
    before = len(_parents(client))
    monkeypatch.setenv("LANDSLIDE_MAX_CPU_HOURS", "0")
    message = _message(write_config(tmp_path / "config.yaml", data, training={"epochs": 100_000}, folds={"n_folds": 2}))
    assert "step open_run: The training takes about " in message
    assert "0 hours are allowed" in message
    assert "set LANDSLIDE_MAX_CPU_HOURS" in message
    assert len(_parents(client)) == before


def test_group_of_bands_may_be_a_number(stack, tmp_path):
    from pipelines.training import training_pipeline

    config = write_config(tmp_path / "config.yaml", tmp_path, training={"bands": 14})
    training_pipeline.with_options(config_path=str(config)).prepare()


def test_missing_configuration_is_named():
    result = train(Path("configs/nothing.yaml"))
    assert result.exit_code == 1
    assert "configs/nothing.yaml cannot be read: No such file or directory." in result.output
    assert "Correct the path" in result.output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"parameters: &p {data: *p}\n", ["the anchor 'p' holds itself", "config.yaml", "line 1"]),
        (b"parameters:\n  training:\n    epochs: 3\n    epochs: 9\n", ["the key 'epochs' occurs twice", "line 4"]),
        ("parameters: {start_from: é}\n".encode("latin-1"), ["is no text in UTF-8", "Save the file as UTF-8"]),
        ("parameters: {}\n".encode("utf-16"), ["is no text in UTF-8", "Save the file as UTF-8"]),
        ("parameters: {}\n".encode("utf-16-le"), ["is no text in UTF-8", "Save the file as UTF-8"]),
    ],
)
def test_configuration_that_is_ambiguous_or_no_utf8_is_refused(content, expected, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    result = train(path)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    for text in (str(path), *expected):
        assert text in result.stderr


def test_numbers_may_be_written_as_text_or_with_a_decimal_point(stack, tmp_path):
    from pipelines.training import training_pipeline

    training = {"epochs": 12.0, "batch_size": "3", "weight_decay": 1, "bands": "14"}
    path = write_config(tmp_path / "config.yaml", tmp_path, training=training)
    path.write_text(path.read_text() + "    optimizer_epsilon: 1e-6\n")
    pipeline = training_pipeline.with_options(config_path=str(path))
    pipeline.prepare()
    found = pipeline._parameters["training"]
    assert (found.epochs, found.batch_size, found.weight_decay, found.optimizer_epsilon) == (12, 3, 1.0, 1e-6)


def test_pipe_as_configuration_is_refused(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    result = train(tmp_path / "config.yaml")
    assert result.exit_code == 1
    assert "config.yaml is a pipe, a socket or a device." in result.stderr


def test_missing_data_folder_is_named(stack, tmp_path):
    message = _message(write_config(tmp_path / "config.yaml", tmp_path / "nowhere"))
    assert "nowhere" in message
    assert "landslide data demo" in message


def test_all_faulty_files_are_reported_together(data, client, tmp_path):
    image = data / "TrainData" / "img" / "image_3.h5"
    image.write_bytes(image.read_bytes()[:1000])
    (data / "TrainData" / "mask" / "mask_5.h5").unlink()
    with h5py.File(data / "TrainData" / "img" / "image_7.h5", "w") as file:
        file["img"] = np.zeros((64, 64, 14))
    caches = set(band_caches().glob("*/*"))
    parents = len(_parents(client))
    message = _message(write_config(tmp_path / "config.yaml", data))
    for culprit in ("image_3.h5", "image_5.h5", "image_7.h5", "landslide data check"):
        assert culprit in message
    assert set(band_caches().glob("*/*")) == caches
    assert len(_parents(client)) == parents


def test_data_that_differs_from_the_dvc_pin_is_refused(data, stack, tmp_path):
    (tmp_path / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": "0" * 32 + ".dir", "path": "data"}]}))
    message = _message(write_config(tmp_path / "config.yaml", data))
    assert "dvc add data" in message
    assert "0" * 32 in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"parameterz": {}}, ["parameterz", "parameters"]),
        ({"parameterz": {}, "stepz": {}}, ["unknown key 'parameterz', 'stepz'", "'parameters'", "'steps'"]),
        ({"parameters": {"trainin": {}}}, ["parameters.trainin", "training"]),
        ({"parameters": {"training": {"epochz": 3}}}, ["parameters.training.epochz", "epochs"]),
        ({"parameters": {"training": {"augmentation": {"modus": 1}}}}, ["augmentation.modus", "mode"]),
        ({"parameters": {"training": {"epochs": "many"}}}, ["parameters.training.epochs", "many"]),
        ({"parameters": {"training": {"epochs": 0}}}, ["training.epochs", "1 or more"]),
        ({"parameters": {"training": {"schedule": "cosine"}}}, ["training.schedule is 'cosine'", "kind: cosine"]),
        ({"parameters": {"training": {"learning_rate": 1}}}, ["training.learning_rate is 1", "kind: cosine"]),
        (
            {"parameters": {"training": {"schedule": {"kind": "cosine", "peek": 1}}}},
            ["training.schedule.peek", "'peak'"],
        ),
        ({"parameters": {"bands": {"stored": ["B4", "B99"]}}}, ["B99"]),
        ({"parameters": {"folds": {"scheme": "sorted"}}}, ["sorted", "contiguous"]),
        ({"parameters": {"folds": {"trained": [6]}}}, ["folds.trained is [6]", "from 1 to 5"]),
        ({"parameters": {"folds": {"trained": [2, 2]}}}, ["folds.trained is [2, 2]", "distinct"]),
        ({"parameters": {"folds": {"trained": []}}}, ["folds.trained is []", "leave it out"]),
        ({"parameters": {"training": {"bands": "15"}}}, ["no band group '15'", "sentinel_only"]),
        (
            {
                "parameters": {
                    "training": {"bands": ["B4", "gradient_y"]},
                    "evaluation": {"test_time_augmentation": "rotations"},
                }
            },
            ["only gradient_y is selected"],
        ),
        (
            {"parameters": {"bands": {"stored": ["B4", "B3"], "blur_kernel": 5}, "training": {"bands": ["B4"]}}},
            ["bands.blur_kernel is 5", "no effect"],
        ),
        (
            {"parameters": {"training": {"model": "unet", "prediction": {"heads": "average"}}}},
            ["training.prediction.heads is 'average' and has no effect: the network unet has one head"],
        ),
        (
            {"parameters": {"training": {"weight_decay": math.inf}}},
            ["parameters.training.weight_decay is inf", "finite"],
        ),
        ({"parameters": {"bands": {"canny_low": -math.inf}}}, ["parameters.bands.canny_low is -inf"]),
        ({"parameters": {"training": {"schedule": {"rates": [[2, math.inf]]}}}}, ["schedule.rates[0][1] is inf"]),
        ({"parameters": {"training": {"batch_size": True}}}, ["parameters.training.batch_size is true", "a number"]),
        ({"parameters": {"training": {"epochs": True, "weight_decay": 1}}}, ["parameters.training.epochs is true"]),
        ({"parameters": {"training": {"head_weights": {"128": False}}}}, ["training.head_weights.128 is false"]),
        ({"parameters": {"training": {"devices": True}}}, ["training.devices is true"]),
        ({"parameters": {"training": {"positive_share": True}}}, ["training.positive_share is true"]),
        ({"parameters": {"training": {"bands": True}}}, ["training.bands", "is True"]),
        ({"parameters": {"training": {"augmentation": {"illumination": False}}}}, ["illumination is false"]),
        ({"parameters": {"training": {"schedule": {"kind": "steps", "rates": [[True, 1]]}}}}, ["rates[0][0] is true"]),
        ({"parameters": {"training": {"schedule": {"kind": "cosine", "peak": True}}}}, ["schedule.peak is true"]),
        ({"parameters": {"training": {"weight_decay": "1e999"}}}, ["training.weight_decay is 1e999", "finite"]),
        ({"parameters": {"folds": {"trained": [1, True]}}}, ["folds.trained[1] is true"]),
        ({"parameters": {"bands": {"blur_kernel": True}}}, ["bands.blur_kernel is true"]),
        ({"parameters": {"training": {"seed": -1}}}, ["training.seed is -1", "0 to 4,294,967,295"]),
        ({"parameters": {"training": {"seed": 2**32}}}, ["training.seed is 4294967296"]),
        ({"parameters": {"folds": {"scheme": "random", "seed": -5}}}, ["folds.seed is -5"]),
        ({"parameters": {"training": {"batch_size": 10**23}}}, ["training.batch_size is 1", "1 to 100,000"]),
        ({"parameters": {"training": {"test_schedule": {"half_epochs_from": 66}}}}, ["half_epochs_from is 66"]),
        ({"parameters": {"start_from": 1}}, ["parameters.start_from is 1", "Put it in quotes: '1'"]),
        ({"steps": {"train_folds": {"enable_cache": False}}}, ["train_folds", "train_fold_1"]),
        ({"steps": {"one": {}, "two": {}}}, ["steps.one, steps.two: no step of", "train_fold_1"]),
        (["no", "mapping"], ["no settings"]),
    ],
)
def test_invalid_configuration_error_names_the_key_and_valid_choices(content, expected, stack, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    message = _message(path)
    for text in ("config.yaml", *expected):
        assert text in message
