"""The mapping pipeline, and `landslide map` with a registered model."""

import json
import os
import re
import subprocess
import sys

import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.windows import Window

from landslide.cli import main
from landslide.scenes.demo_scene import write_demo_scene
from landslide.tracking import registry, runs
from tests.support import versions
from tests.support.full_disk import files_limited

pytestmark = pytest.mark.slow


@pytest.fixture
def champion(store, tmp_path):
    """The store with a version in service."""
    client = runs.connect(store)
    number = versions.add_version(client, tmp_path, bands=("B4", "B8", "slope"))
    registry.apply_decision(client, number, registry.Decision(registry.CHAMPION, "the first"))
    return client


@pytest.fixture
def scene(tmp_path):
    return write_demo_scene(tmp_path / "scene", layout="bands", rows=1, columns=1)


def invoke(*arguments):
    return CliRunner().invoke(main, ["map", *map(str, arguments)])


def test_map_command_maps_with_the_champion_and_records_it_once(champion, scene, tmp_path):
    options = ("--dem", scene.parent / "dem.tif", "-o", tmp_path / "maps", "--record", "--workers", 2)
    done = invoke(scene, *options)
    assert done.exit_code == 0, done.output
    assert "landslides," in done.output
    (run,) = runs.search(champion, "tags.role = 'mapping'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_version"] == "1"
    assert run.data.metrics["map/landslides"] >= 0
    names = {artifact.path for artifact in champion.list_artifacts(run.info.run_id, "map")}
    assert {"map/landslides.gpkg", "map/map.html", "map/probability.tif", "map/summary.json"} <= names
    again = invoke(scene, *options, "--json")
    assert again.exit_code == 0
    assert len(runs.search(champion, "tags.role = 'mapping'")) == 1
    assert json.loads(again.stdout)["model_version"] == "1"


def test_a_scene_that_fails_does_not_keep_the_others_from_being_mapped(champion, scene, tmp_path):
    scenes = [write_demo_scene(tmp_path / name, layout="stack", rows=1, columns=1) for name in "abc"]
    first, damaged, last = (path.rename(path.parent / f"{path.parent.name}.tif") for path in scenes)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 3)
        file.write(bytes(4000))
    options = ("--dem", scene.parent / "dem.tif", "-o", tmp_path / "maps", "--json")
    done = invoke(first, damaged, last, *options)
    assert done.exit_code == 1
    assert [json.loads(line)["scene"] for line in done.stdout.splitlines()] == ["a", "c"]
    assert f"Error: {damaged} cannot be read" in done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "Error: 1 of 3 scenes failed: b.",
        "  -> Mend what is said above; the same command does the rest.",
    ]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_scene_that_cannot_be_mapped_does_not_keep_the_others_from_it(champion, scene, tmp_path, more):
    good = write_demo_scene(tmp_path / "a", layout="stack", rows=1, columns=1)
    missing, small = tmp_path / "missing.tif", tmp_path / "small.tif"
    with rasterio.open(good) as source:
        profile = source.profile | {"width": 8, "height": 8, "tiled": False}
        profile = {name: value for name, value in profile.items() if not name.startswith("block")}
        with rasterio.open(small, "w", **profile) as target:
            target.write(source.read(window=Window(0, 0, 8, 8)))
            target.descriptions, target.scales, target.offsets = source.descriptions, source.scales, source.offsets
    done = invoke(missing, small, good, "--dem", scene.parent / "dem.tif", "-o", tmp_path / "maps", *more)
    assert done.exit_code == 1
    assert f"Error: There is no scene {missing}." in done.stderr
    assert f"Error: {small}: The scene has 8 x 8 pixels" in done.stderr
    assert f"Error: 2 of 3 scenes failed: {missing}, {small}." in done.stderr
    assert f"{tmp_path / 'maps' / good.stem}" in done.stdout
    assert (tmp_path / "maps" / good.stem / "probability.tif").exists() == (not more)


def test_dry_run_says_what_was_understood_and_writes_nothing(champion, scene, tmp_path):
    done = invoke(scene, "--dem", scene.parent / "dem.tif", "-o", tmp_path / "maps", "--dry-run")
    assert done.exit_code == 0, done.output
    for expected in (
        "read as        bands", "number x 0.0001 -0.1", "128 x 128 pixels of 10.00 x 10.00 m, EPSG:32645",
        "100.0 % of the scene", "landslide-segmentation 1, 2 networks, needs B4, B8, slope", "1, each 128 x 128 pixels",
    ):  # fmt: skip
        assert expected in done.output
    assert not (tmp_path / "maps").exists()


def test_memory_of_a_map_is_about_what_the_dry_run_said(champion, scene, tmp_path):
    def run(*more) -> tuple[str, float]:
        """Return the output of a map in a process of its own, and its largest memory in GB."""
        command = [
            sys.executable,
            "-m",
            "landslide",
            "map",
            scene,
            "--dem",
            scene.parent / "dem.tif",
            "-o",
            tmp_path / "m",
        ]
        with subprocess.Popen([*map(str, command), *more], stdout=subprocess.PIPE, text=True) as process:
            said = process.stdout.read()
            _, process.returncode, usage = os.wait4(process.pid, 0)
        assert process.returncode == 0
        return said, 1024 * usage.ru_maxrss / 1e9

    said, _ = run("--dry-run")
    forecast = float(re.search(r"memory +about ([0-9.]+) GB", said)[1])
    _, taken = run()
    assert 0.8 * taken < forecast < 1.4 * taken


@pytest.mark.parametrize("copied", [True, False], ids=["the model is copied there", "the terrain is written there"])
def test_a_full_folder_of_temporary_files_is_named(champion, scene, tmp_path, copied):
    model = "champion" if copied else next((tmp_path / "mlartifacts").rglob("ensemble.json")).parent
    with files_limited(50_000):
        done = invoke(scene, "--dem", scene.parent / "dem.tif", "-o", "maps", "--model", model, "--dry-run")
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True)
    assert ("cannot be copied" if copied else "temporary files cannot be written") in done.output
    assert "TMPDIR" in done.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere",), "nowhere"),
        (("{scene}", "--model", "99"), "has no version 99"),
        (("{scene}", "--model", "models:/other/1"), "is not a version of landslide-segmentation"),
        (("{scene}", "--model", "{scene}"), "holds no model"),
        (("{scene}",), "needs slope, and there is no elevation model"),
        (("{scene}", "--dem", "{dem}", "--offset", "-500"), "offset"),
        (("{scene}", "--dem", "{dem}", "--overlap", "1"), "mapping.overlap is 1.0"),
        (("{scene}", "--dem", "{dem}", "--threshold", "2"), "mapping.threshold is 2.0"),
        (("{scene}", "--dem", "{dem}", "--min-area", "inf"), "Give 0 or more square metres"),
        (("{scene}", "{scene}", "--dem", "{dem}"), "have the name"),
        (("{scene}", "--dem", "{dem}", "--area", "1,2,3"), "1,2,3"),
    ],
)
def test_bad_input_ends_with_its_reason(champion, scene, tmp_path, arguments, expected):
    places = {"scene": scene, "dem": scene.parent / "dem.tif"}
    done = invoke(*(argument.format(**places) for argument in arguments), "-o", tmp_path / "maps")
    assert done.exit_code in (1, 2)
    assert expected in done.output
    assert isinstance(done.exception, SystemExit)
    assert not (tmp_path / "maps" / "bands").exists()


def test_mapping_pipeline_maps_each_scene_in_a_step_of_its_own(stack, champion, scene, tmp_path, monkeypatch):
    from pipelines.mapping import mapping_pipeline

    other = write_demo_scene(tmp_path / "second", layout="stack", rows=1, columns=1, seed=1)
    config = tmp_path / "mapping.yaml"
    parameters = {
        "scenes": [str(scene), str(other)],
        "dem": [str(scene.parent / "dem.tif")],
        "output": str(tmp_path / "maps"),
        "mapping": {"overlap": 0},
    }
    config.write_text(yaml.safe_dump({"parameters": parameters}))
    mapping_pipeline.with_options(config_path=str(config))()
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"bands", "stack"}
    assert len(runs.search(champion, "tags.role = 'mapping'")) == 2


def run_pipeline(tmp_path, scene, **parameters):
    from pipelines.mapping import mapping_pipeline

    config = tmp_path / "mapping.yaml"
    common = {"dem": [str(scene.parent / "dem.tif")], "output": str(tmp_path / "maps")}
    config.write_text(yaml.safe_dump({"parameters": common | parameters}))
    mapping_pipeline.with_options(config_path=str(config))()


def test_mapping_pipeline_replaces_a_map_on_demand_only(stack, champion, scene, tmp_path):
    from pipelines.configured import PipelineError

    run_pipeline(tmp_path, scene, scenes=[str(scene)])
    changed = {"scenes": [str(scene)], "mapping": {"threshold": 0.4}}
    with pytest.raises(PipelineError) as caught:
        run_pipeline(tmp_path, scene, **changed)
    folder = tmp_path / "maps" / "bands"
    assert caught.value.message.splitlines() == [
        f"step map_scene_1: {folder} holds a map that differs in settings.",
        "  -> Replace it with --overwrite (in a pipeline: overwrite: true), or choose another folder with --output "
        "(output).",
    ]
    run_pipeline(tmp_path, scene, **changed, overwrite=True)
    assert json.loads((folder / "summary.json").read_text())["threshold"] == 0.4


def test_mapping_pipeline_refuses_two_scenes_of_one_name_before_it_starts(stack, champion, scene, tmp_path):
    from pipelines.configured import PipelineError

    other = write_demo_scene(tmp_path / "other", layout="bands", rows=1, columns=1)
    with pytest.raises(PipelineError, match="have the name bands, and so would their results"):
        run_pipeline(tmp_path, scene, scenes=[str(scene), str(other)])
    with pytest.raises(PipelineError, match="have the name nowhere"):
        run_pipeline(tmp_path, scene, scenes=["nowhere", "nowhere"])
    assert not (tmp_path / "maps").exists()


def test_mapping_pipeline_without_scenes_is_refused(stack):
    from pipelines.configured import PipelineError
    from pipelines.mapping import mapping_pipeline

    with pytest.raises(PipelineError, match=r"parameters\.scenes is empty"):
        mapping_pipeline()


@pytest.mark.parametrize("group", ["exclusions", "mapping", "scene"])
def test_unknown_setting_is_refused(stack, tmp_path, group):
    from pipelines.configured import PipelineError
    from pipelines.mapping import mapping_pipeline

    config = tmp_path / "mapping.yaml"
    config.write_text(yaml.safe_dump({"parameters": {"scenes": ["a"], group: {"cloudz": "none"}}}))
    with pytest.raises(PipelineError, match=rf"unknown key parameters\.{group}\.cloudz"):
        mapping_pipeline.with_options(config_path=str(config)).prepare()
