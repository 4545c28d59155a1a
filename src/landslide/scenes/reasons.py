"""Why a pixel is not analysed."""

from enum import IntEnum


class Reason(IntEnum):
    """Codes of the raster of reasons; if several hold, the highest one counts."""

    ANALYSED = 0
    """Analysed."""
    TOO_LITTLE_VALID = 1
    """Every window here had too few valid pixels."""
    SNOW = 2
    """Snow or ice."""
    MASKED = 3
    """Left out by a mask of the user's own, for example water."""
    CLOUD_SHADOW = 4
    """Shadow of a cloud."""
    CLOUD = 5
    """Cloud, thin cirrus included."""
    DEFECTIVE = 6
    """Saturated or defective in a band that the model needs."""
    IMPOSSIBLE_VALUE = 7
    """A band has a value that no ground reflects, most often a fill value that the file does not declare."""
    NO_DATA = 8
    """No data in a band or in the elevation model."""
    OUTSIDE_AREA = 9
    """Outside the area of interest."""

    @property
    def text(self) -> str:
        """The reason in words, as the layer `not_analysed` gives it."""
        return self.name.lower().replace("_", " ")
