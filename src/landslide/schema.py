"""Names and sizes of the data set: bands, patches, splits, layouts, columns. Imports nothing heavy."""

from typing import Literal

ORIGINAL_BANDS: tuple[str, ...] = (
    *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12"),
    *("slope", "dem"),
)
"""The stored bands in file order. B8A is absent, so index 7 is B8 and index 8 is B9."""

PATCH_SIZE = 128
"""Height and width of a patch in pixels of 10 m."""

Split = Literal["train", "validation", "test"]

Positions = Literal["auto", "landslide4sense", "none"]

# Image folder and mask folder of each split, in the layouts of Zenodo and of Hugging Face.
LAYOUTS: tuple[dict[Split, tuple[str, str]], ...] = (
    {
        "train": ("TrainData/img", "TrainData/mask"),
        "validation": ("ValidData/img", "ValidData/mask"),
        "test": ("TestData/img", "TestData/mask"),
    },
    {
        "train": ("images/train", "annotations/train"),
        "validation": ("images/validation", "annotations/validation"),
        "test": ("images/test", "annotations/test"),
    },
)

POSITION_COLUMNS = ("scene", "row", "column")
