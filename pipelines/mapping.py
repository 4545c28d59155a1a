"""The mapping pipeline: scenes in, maps of landslides out.

zenml pipeline run pipelines.mapping.mapping_pipeline -c configs/mapping.yaml
"""

from landslide.errors import ConfigurationError
from landslide.mapping.exclusions import ExclusionSettings
from landslide.mapping.settings import MappingSettings, SceneSettings
from pipelines.configured import configured_pipeline
from steps.map_scene import map_scene


@configured_pipeline()
def mapping_pipeline(
    scenes: tuple[str, ...] = (),
    dem: tuple[str, ...] = (),
    output: str = "maps",
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
        model: Version, alias, address or folder of the model.
        scene: What the scenes do not say about themselves.
        exclusions: What is not analysed.
        mapping: How the maps are made.
    """
    if not scenes:
        raise ConfigurationError(
            "parameters.scenes is empty.", remedy="List the scenes to map, as in configs/mapping.yaml."
        )
    for number, source in enumerate(scenes, start=1):
        map_scene.with_options(enable_cache=False)(
            source=source, dem=list(dem), output=output, model=model, scene=scene, exclusions=exclusions,
            mapping=mapping, id=f"map_scene_{number}",
        )  # fmt: skip
