"""Training patches from scenes and polygons, and from images and masks that people already have."""
