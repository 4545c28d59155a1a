"""Metrics as functions of confusion counts, and statistics derived from them."""

from landslide.metrics.counts import confusion_counts, scores

__all__ = ["confusion_counts", "scores"]
