"""Looks up once which package each installed module is from.

ZenML and MLflow ask for it in every step, and each answer reads the metadata of all packages.
"""

import importlib.metadata
from functools import cache

import importlib_metadata

for library in (importlib.metadata, importlib_metadata):
    library.packages_distributions = cache(library.packages_distributions)
    library.packages_distributions()
