"""What a map consists of: rasters, polygons with attributes, pictures, pages and a STAC Item; and that of its model."""
