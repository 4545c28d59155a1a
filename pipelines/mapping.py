"""The mapping pipeline: scenes in, maps of landslides out.

zenml pipeline run pipelines.mapping.mapping_pipeline -c configs/mapping.yaml
"""

from dataclasses import asdict

from landslide.errors import ConfigurationError, LandslideError
from landslide.mapping.settings import MappingSettings, SceneSettings
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene, refuse_equal_names
from pipelines.configured import configured_pipeline
from steps.map_scene import map_scene


@configured_pipeline()
def mapping_pipeline(
    scenes: tuple[str, ...] = (),
    dem: tuple[str, ...] = (),
    output: str = "maps",
    overwrite: bool = False,
    model: str = "champion",
    scene: SceneSettings = SceneSettings(),  # noqa: B008 (frozen)
    exclusions: ExclusionSettings = ExclusionSettings(),  # noqa: B008
    mapping: MappingSettings = MappingSettings(),  # noqa: B008
) -> None:
    """Map scenes, each in a step of its own.

    Args:
        scenes: The scenes: products, folders, rasters or STAC Items.
        dem: Elevation models that cover them.
        output: Folder of the maps: one folder for each scene.
        overwrite: Replace maps of another model or other settings.
        model: Version, alias, address or folder of the model.
        scene: What the scenes do not say about themselves.
        exclusions: What is not analysed.
        mapping: How the maps are made.
    """
    if not scenes:
        raise ConfigurationError(
            "parameters.scenes is empty.", remedy="List the scenes to map, as in configs/mapping.yaml."
        )
    refuse_equal_names([_name(source, scene) for source in scenes], scenes)  # their steps might run at the same time
    for number, source in enumerate(scenes, start=1):
        map_scene.with_options(enable_cache=False)(
            source=source, dem=list(dem), output=output, overwrite=overwrite, model=model, scene=scene,
            exclusions=exclusions, mapping=mapping, id=f"map_scene_{number}",
        )  # fmt: skip


def _name(source: str, settings: SceneSettings) -> str:
    try:
        return open_scene(source, **asdict(settings)).name
    except LandslideError:  # its step says so; or it is only where the step runs
        return source
