"""Scores of a cross-validation, with their tables and figures."""
