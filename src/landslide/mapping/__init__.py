"""Whole scenes in, maps out: probability rasters, polygons of landslides, and what could not be analysed."""
