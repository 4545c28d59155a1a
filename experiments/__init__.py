"""Measurements on real data that the results pages report."""
