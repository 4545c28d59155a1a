"""Operation of an installation: health checks and the disk budget."""
