"""Comparisons of speed, side by side: `python -m benchmarks` (docs/performance.md)."""
