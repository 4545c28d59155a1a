"""Sentinel-2 scenes as their makers deliver them, read as bands on one grid, with terrain and what cannot be judged."""
