"""The data set: patches on disk, their tables, checks and versions, and how data sets are made or fetched."""
