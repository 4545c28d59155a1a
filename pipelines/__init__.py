"""The pipelines: each reads like the story of its job."""
