"""The steps of the pipelines: thin, one a file. They call the library and record what happened."""
