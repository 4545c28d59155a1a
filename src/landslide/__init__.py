"""Landslide segmentation from Sentinel-2 patches.

Data goes one way: patches -> bands -> cache -> folds -> training -> evaluation -> tracking.
"""

__version__ = "0.1.0"
