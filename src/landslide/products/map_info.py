"""What every product of a map quotes: the scene, the model and the settings; and the columns of the landslides."""

from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType


@dataclass(frozen=True)
class MapInfo:
    """Where a map comes from.

    Attributes:
        scene: Name of the scene, such as a product identifier.
        source: Path or address of the scene.
        sensor: For example "Sentinel-2A"; None if unknown.
        level: Processing level, "L1C" or "L2A"; None if unknown.
        image_datetime: When the image was taken, with its time zone; None if unknown.
        processing_baseline: For example "05.10"; None if unknown.
        model: Name of the model.
        model_version: Number of its version; empty for a model from a folder.
        model_address: Path or address of the model.
        threshold: Landslide probability from which a pixel is a landslide.
        minimum_area: Minimum mapping unit in m2; smaller polygons are left out.
        blending: How overlapping windows were joined, in words.
        augmentation: Test-time augmentation, in words.
        created: When the map was made, with its time zone.
        landslide_version: Version of this package.
    """

    scene: str
    source: str
    sensor: str | None
    level: str | None
    image_datetime: datetime | None
    processing_baseline: str | None
    model: str
    model_version: str
    model_address: str
    threshold: float
    minimum_area: float
    blending: str
    augmentation: str
    created: datetime
    landslide_version: str

    @property
    def image_date(self) -> str | None:
        """Day of the image, such as "2023-12-17"."""
        return None if self.image_datetime is None else self.image_datetime.date().isoformat()

    @property
    def model_label(self) -> str:
        """Name of the model with its version, if it has one, such as "landslide-segmentation version 3"."""
        return f"{self.model} version {self.model_version}" if self.model_version else self.model


@dataclass(frozen=True)
class Column:
    """A column of the landslides.

    Attributes:
        dtype: "int", "float", "text" or "bool".
        description: What it holds, and where it matters how it is computed.
        unit: Unit of measure, empty if there is none.
        decimals: Digits after the decimal point of a float.
    """

    dtype: str
    description: str
    unit: str = ""
    decimals: int = 0


LANDSLIDE_COLUMNS = MappingProxyType(
    {
        "id": Column("int", "Number of the polygon, from north to south, then from west to east"),
        "area_m2": Column("float", "Geodesic area on WGS 84", "m2", 1),
        "perimeter_m": Column("float", "Geodesic length of all edges, those of holes included", "m", 1),
        "length_m": Column("float", "Longer side of the minimum rotated rectangle", "m", 1),
        "width_m": Column("float", "Shorter side of the minimum rotated rectangle", "m", 1),
        "elongation": Column("float", "Length divided by width", "", 2),
        "elev_min": Column("float", "Lowest elevation", "m", 1),
        "elev_max": Column("float", "Highest elevation", "m", 1),
        "elev_mean": Column("float", "Mean elevation", "m", 1),
        "relief_m": Column("float", "Highest minus lowest elevation", "m", 1),
        "slope_mean": Column("float", "Mean slope", "degrees", 1),
        "slope_max": Column("float", "Largest slope", "degrees", 1),
        "aspect_mean": Column("float", "Circular mean of the downslope direction, clockwise from north", "degrees", 1),
        "runout_m": Column("float", "Horizontal distance between the highest and the lowest pixel", "m", 1),
        "h_over_l": Column("float", "Relief divided by runout", "", 3),
        "prob_mean": Column("float", "Mean landslide probability", "", 4),
        "prob_max": Column("float", "Largest landslide probability", "", 4),
        "std_mean": Column("float", "Mean standard deviation of the probability over the ensemble", "", 4),
        "confidence": Column(
            "text",
            "By prob_mean - std_mean: high from halfway between threshold and 1, medium from the threshold, else low",
        ),
        "image_date": Column("text", "Day on which the image was taken"),
        "sensor": Column("text", "Satellite"),
        "processing_baseline": Column("text", "Processing baseline of the image"),
        "model": Column("text", "Name of the model"),
        "model_version": Column("text", "Version of the model"),
        "threshold": Column("float", "Landslide probability from which a pixel is a landslide", "", 4),
        "min_area_m2": Column("float", "Minimum mapping unit", "m2", 1),
        "at_edge": Column("bool", "Touches the edge of the scene or a pixel that was not analysed"),
        "reviewed": Column("bool", "Checked by a person"),
    }
)
"""The columns of the layer `landslides`, in order, before the geometry."""
