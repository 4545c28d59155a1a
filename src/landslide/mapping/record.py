"""A map as an MLflow run with the tag `role=mapping`."""

from landslide.mapping.map_folder import FinishedMap
from landslide.paths import default_tracking_uri
from landslide.tracking import runs

_METRICS = ("landslides", "area_m2", "largest_m2", "below_minimum", "not_analysed", "seconds")


def record_map(finished: FinishedMap) -> str:
    """Record a map with its products, once: a map that was recorded has its run.

    Args:
        finished: The map.

    Returns:
        The id of the run.

    Raises:
        RegistryError: If the tracking store is unavailable.
    """
    client, summary = runs.connect(default_tracking_uri()), finished.summary
    known = runs.search(client, f"tags.role = 'mapping' and tags.map = '{summary['digest']}'")
    if known:
        return str(known[0].info.run_id)
    tags = {
        "role": "mapping",
        "map": summary["digest"],
        "scene": summary["scene"],
        "model_version": summary["model_version"],
    }
    settings = {key: summary[key] for key in ("scene", "source", "model", "model_version", "threshold", "min_area_m2")}
    run = runs.create_run(client, f"map of {summary['scene']}", tags, settings)
    runs.log_scores(client, run, {f"map/{name}": summary[name] for name in _METRICS})
    client.log_artifacts(run, str(finished.folder), "map")
    runs.finish(client, run)
    return run
