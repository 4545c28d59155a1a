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

LABEL_CHANGES = "label_changes.csv"
"""File of a data set that says which of its labels were changed after an audit."""

# NumPy, PyTorch and Python take these.
SEEDS = range(2**32)

# Means by which the publishers divided the raw values: digital numbers for B1-B12 (reflectance x 10,000),
# degrees for the slope, metres for the elevation. They hold for Landslide4Sense files only.
STORED_DIVISORS: dict[str, float] = dict(
    zip(
        ORIGINAL_BANDS,
        (
            1111.81236406, 824.63171476, 663.41636217, 445.17289745, 645.8582926, 1547.73508126, 1960.44401001,
            1941.32229668, 674.07572865, 9.04787384, 1113.98338755, 519.90397929, 20.29228266, 772.83144788,
        ),
        strict=True,
    )
)  # fmt: skip
