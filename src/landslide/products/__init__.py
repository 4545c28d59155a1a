"""What a map consists of: rasters, polygons with attributes, pictures, pages, and STAC items."""
