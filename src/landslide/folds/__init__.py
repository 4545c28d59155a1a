"""Cross-validation folds: schemes, the fold table, and the parts that train and select."""

from landslide.folds.schemes import assign

__all__ = ["assign"]
