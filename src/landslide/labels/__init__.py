"""Labels: from polygons to training patches."""
