"""The bands of a patch: formulas, the cache on disk, batches and statistics."""

from landslide.bands.formulas import BAND_NAMES, BandSettings, engineer

__all__ = ["BAND_NAMES", "BandSettings", "engineer"]
