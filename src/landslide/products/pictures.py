"""A picture of a map: the image with the landslides, and the probability beside it."""

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from pyproj import Transformer

from landslide.files import atomic_write
from landslide.products.colours import CONFIDENCE_COLOURS, REASON_COLOURS
from landslide.products.map_info import MapInfo
from landslide.products.overlays import not_analysed_overlay, probability_overview
from landslide.scenes.grid import WGS84, Grid

_PANEL = 7.0  # longer side of a panel in inches
_DPI = 150
_RINGED = 60  # up to so many landslides, small ones are ringed
_HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]
_WIDE_HALO = [patheffects.withStroke(linewidth=6, foreground="white")]


def write_quicklook(
    path: Path,
    preview_rgb: npt.NDArray[np.uint8],
    folder: Path,
    grid: Grid,
    landslides: gpd.GeoDataFrame,
    not_analysed: gpd.GeoDataFrame,
    info: MapInfo,
) -> None:
    """Draw a map as a PNG file.

    Args:
        path: The file; an older one is replaced when the new one is complete.
        preview_rgb: (H, W, 3) uint8, true colours of the whole scene at a size of a screen.
        folder: The folder with probability.tif and reasons.tif.
        grid: The scene.
        landslides: As `landslide_polygons` returns them.
        not_analysed: As `not_analysed_polygons` returns them.
        info: What the title quotes.

    Raises:
        OSError: If the file cannot be written.
    """
    size = np.array([grid.width, grid.height]) * grid.pixel_size
    width, height = _PANEL * size / size.max()
    stacked = width > 1.6 * height
    rows, columns = (2, 1) if stacked else (1, 2)
    # Room for tick labels, title, legend and colour bar, in inches.
    left, gap, right, top, bottom = 0.9, (1.0 if stacked else 0.6), 1.0, 1.0, 1.2
    total = left + columns * width + (columns - 1) * gap + right, top + rows * height + (rows - 1) * gap + bottom
    figure = Figure(figsize=(max(total[0], 7.5), total[1]), dpi=_DPI)
    FigureCanvasAgg(figure)
    inches = np.tile(figure.get_size_inches(), 2)
    second = (left, bottom) if stacked else (left + width + gap, bottom)
    first = (left, bottom + height + gap) if stacked else (left, bottom)
    image_axes, probability_axes = (
        figure.add_axes(tuple(np.array([*corner, width, height]) / inches)) for corner in (first, second)
    )
    bar = figure.add_axes(tuple(np.array([second[0] + width + 0.15, second[1], 0.15, height]) / inches))

    _draw_frame(image_axes, grid, "Image and landslides")
    image_axes.imshow(preview_rgb, extent=_extent(grid), aspect="auto", interpolation="antialiased")
    _draw_landslides(image_axes, landslides, figure)
    _draw_scale_bar(image_axes, grid)
    _draw_north_arrow(image_axes, grid)

    _draw_frame(probability_axes, grid, "Landslide probability")
    probability_axes.tick_params(labelleft=stacked)
    drawn = probability_axes.imshow(
        probability_overview(folder, preview_rgb.shape[:2]),
        extent=_extent(grid),
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=1,
    )
    colour_bar = figure.colorbar(drawn, cax=bar)
    bar.axhline(info.threshold, color="white", linewidth=2)
    colour_bar.ax.tick_params(labelsize=8)
    bar.set_title(f"threshold\n{info.threshold:.2f}", fontsize=8)
    overlay = not_analysed_overlay(folder, (round(height * _DPI), round(width * _DPI)))
    for axes in (image_axes, probability_axes):
        axes.imshow(overlay, extent=_extent(grid), aspect="auto", interpolation="nearest")

    _write_title(figure, landslides, info)
    figure.legend(
        handles=_legend(landslides, not_analysed), loc="lower center", ncols=4, fontsize=9, frameon=False,
        bbox_to_anchor=(0.5, 0.02), handlelength=2.2, handleheight=1.2,
    )  # fmt: skip
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name in another script
        figure.savefig(temporary, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    west, south, east, north = grid.bounds
    return west, east, south, north


def _draw_frame(axes: Axes, grid: Grid, title: str) -> None:
    west, south, east, north = grid.bounds
    axes.set(xlim=(west, east), ylim=(south, north))
    axes.set_title(title, fontsize=10)
    axes.set_facecolor("#e8e8e8")
    axes.locator_params(nbins=4)
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(labelsize=8)
    coordinates = "longitude and latitude in degrees" if grid.crs.is_geographic else "easting and northing in m"
    axes.set_xlabel(f"{grid.crs.to_string()}, {coordinates}", fontsize=8)


def _outline(geometry: shapely.Geometry) -> Outline:
    """Return all rings of a polygon as one path, so that its holes stay open."""
    rings = shapely.get_rings(shapely.get_parts(geometry))
    return Outline.make_compound_path(*(Outline(shapely.get_coordinates(ring), closed=True) for ring in rings))


def _draw_landslides(axes: Axes, landslides: gpd.GeoDataFrame, figure: Figure) -> None:
    line = 1.2 if len(landslides) <= _RINGED else 0.6
    for confidence, colour in CONFIDENCE_COLOURS.items():
        group = landslides[landslides["confidence"] == confidence]
        if len(group):
            outline = Outline.make_compound_path(*map(_outline, group.geometry))
            axes.add_patch(PathPatch(outline, facecolor="none", edgecolor=colour, linewidth=line))
    if not 0 < len(landslides) <= _RINGED:
        return
    points = landslides.representative_point()
    bounds = landslides.bounds
    sides = np.maximum(bounds["maxx"] - bounds["minx"], bounds["maxy"] - bounds["miny"])
    small = (sides < 0.012 * np.ptp(axes.get_xlim())).to_numpy()
    colours = landslides["confidence"].map(CONFIDENCE_COLOURS)
    axes.scatter(points.x[small], points.y[small], s=130, facecolors="none", edgecolors=colours[small], linewidths=1.2)


def _draw_scale_bar(axes: Axes, grid: Grid) -> None:
    """Draw a bar of a round length, about a fifth of the width."""
    metres = grid.width * grid.pixel_size[0]
    power = 10 ** np.floor(np.log10(metres / 5))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= metres / 5)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    start, end = 0.04, 0.04 + length / metres
    axes.plot([start, end], [0.04, 0.04], color="black", linewidth=3, transform=axes.transAxes,
              path_effects=_WIDE_HALO, solid_capstyle="butt")  # fmt: skip
    axes.text((start + end) / 2, 0.055, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9,
              path_effects=_HALO)  # fmt: skip


def _draw_north_arrow(axes: Axes, grid: Grid) -> None:
    """Draw an arrow to true north at the centre of the scene."""
    lonlat = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    centre, above = (lonlat.transform(*(grid.transform @ (grid.width / 2, grid.height / 2 - up))) for up in (0, 1))
    turn = np.radians(WGS84.inv(*centre, *above)[0])  # azimuth of the columns of the grid
    across, up = -25 * np.sin(turn), 25 * np.cos(turn)
    axes.annotate(
        "N", xy=(0.95, 0.96), xytext=(-across, -up), xycoords="axes fraction", textcoords="offset points",
        ha="center", va="center", fontsize=11, fontweight="bold", path_effects=_HALO,
        arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.5, "path_effects": _WIDE_HALO},
    )  # fmt: skip


def _write_title(figure: Figure, landslides: gpd.GeoDataFrame, info: MapInfo) -> None:
    area = landslides["area_m2"].sum() / 1e6
    image = [
        info.image_date,
        info.sensor,
        info.level,
        info.processing_baseline and f"baseline {info.processing_baseline}",
    ]
    model = f"{info.model_label}, minimum {info.minimum_area:g} m²"
    number = f"{len(landslides):,} landslide{'' if len(landslides) == 1 else 's'}, {area:.3g} km²"
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.3 / height, info.scene, ha="center", fontsize=12, fontweight="bold")
    figure.text(0.5, 1 - 0.55 / height, " · ".join([*filter(None, image), model, number]), ha="center", fontsize=9)


def _legend(landslides: gpd.GeoDataFrame, not_analysed: gpd.GeoDataFrame) -> list[Patch]:
    counts = landslides["confidence"].value_counts()
    reasons = set(not_analysed["reason"])
    return [
        Patch(facecolor="none", edgecolor=colour, linewidth=1.5,
              label=f"{name} confidence ({counts.get(name, 0):,})") for name, colour in CONFIDENCE_COLOURS.items()
    ] + [
        Patch(facecolor="none", edgecolor=colour, hatch="////", label=f"not analysed: {reason.text}")
        for reason, colour in REASON_COLOURS.items() if reason.text in reasons
    ]  # fmt: skip
