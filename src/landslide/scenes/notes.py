"""What looks wrong about a scene and what goes with it, in words, and stops nothing."""

from landslide.scenes.exclusions import ExclusionSettings, cloud_source
from landslide.scenes.grid import Grid
from landslide.scenes.scene import Scene
from landslide.scenes.terrain import POSSIBLE, Terrain

_PIXEL = 10.0  # metres, of Landslide4Sense
_PIXEL_TOLERANCE = 0.25  # of it


def other_pixels(grid: Grid) -> str:
    """Return the size of the pixels of a scene in words if it is not that of Landslide4Sense; empty if it is."""
    side = grid.pixel_size
    return "" if same_pixels(side, (_PIXEL, _PIXEL)) else f"pixels are {side[0]:.1f} x {side[1]:.1f} m"


def same_pixels(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether pixels have about the same width and height, in metres."""
    return all(abs(a / b - 1) <= _PIXEL_TOLERANCE for a, b in zip(one, other, strict=True))


def input_notes(scene: Scene, exclusions: ExclusionSettings, terrain: Terrain | None) -> list[str]:
    """Return what looks wrong about clouds and elevations.

    Args:
        scene: The scene.
        exclusions: What is left out.
        terrain: Elevations under the scene, if there are some.
    """
    found = []
    if exclusions.clouds == "auto" and cloud_source(scene, exclusions) is None:
        found.append("nothing says where clouds are, so they are analysed like ground (--clouds csmask finds them)")
    if terrain is not None and terrain.coverage < 1:
        found.append(f"the elevation model covers {100 * terrain.coverage:.1f} % of the scene")
    if terrain is not None and terrain.impossible:
        found.append(
            f"in {100 * terrain.impossible:.2g} % of the scene the elevation model has heights below "
            f"{POSSIBLE[0]:g} or above {POSSIBLE[1]:g} m, which count as no data: a fill value that the file does "
            "not declare as nodata, or no metres"
        )
    return found
