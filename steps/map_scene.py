"""Map: make the map of one scene, and record it."""

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from zenml import step

from landslide.mapping.model import open_model
from landslide.mapping.plan import make_plan
from landslide.mapping.record import record_map
from landslide.mapping.report import describe_map
from landslide.mapping.scene_map import default_workers
from landslide.mapping.scene_map import map_scene as make_map
from landslide.mapping.settings import MappingSettings, SceneSettings
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene

logging.getLogger("pyogrio").setLevel(logging.WARNING)  # it counts the rows of every layer


# Never cached: only the folder of the maps knows which there are.
@step(enable_cache=False)
def map_scene(
    source: str,
    dem: list[str],
    output: str,
    overwrite: bool,
    model: str,
    scene: SceneSettings,
    exclusions: ExclusionSettings,
    mapping: MappingSettings,
) -> Annotated[dict[str, Any], "summary"]:
    """Make the map of a scene, or find it, and record it as an MLflow run.

    Args:
        source: The scene.
        dem: Elevation models.
        output: Folder of the maps.
        overwrite: Replace another map of the scene.
        model: Version, alias, address or folder of the model.
        scene: What the scene does not say about itself.
        exclusions: What is not analysed.
        mapping: How the map is made.

    Returns:
        The summary of the map, with the id of its MLflow run as `run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        loaded = open_model(model, Path(folder))
        plan = make_plan(open_scene(source, **asdict(scene)), loaded, mapping, exclusions, dem)
        finished = make_map(plan, Path(output), workers=default_workers(loaded), overwrite=overwrite, say=print)
    run = record_map(finished)
    print(describe_map(finished, run))
    return {**finished.summary, "run": run}
