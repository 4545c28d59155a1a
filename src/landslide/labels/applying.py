"""A data set with the labels that people changed after an audit: in a new folder, or as `./data` under DVC."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from landslide.data.digests import content_digest, directory_digest, file_digest, listing_digest
from landslide.data.patches import write_array
from landslide.data.project import install_and_pin, refuse_unless_replaceable, replacing
from landslide.errors import ConfigurationError, DataError, first_few
from landslide.labels.label_changes import LabelChanges, changes_file
from landslide.schema import LABEL_CHANGES, PATCH_SIZE
from landslide.tiling.new_folder import new_folder, refuse_output

_DONE = {"no_landslide": "removed", "missing": "added", "outline": "redrawn"}


def refuse_place(plan: LabelChanges, output: Path | None, project: Path) -> None:
    """Refuse a place for the new data set where something would be lost.

    Args:
        plan: The changes.
        output: A new folder; None to replace `./data`.
        project: Root of the project.

    Raises:
        DataError: The folder is not empty; or `./data` cannot be restored from DVC, or is not the data set of the plan.
        ConfigurationError: The folder is inside the data set.
    """
    if output is not None:
        refuse_output(output)
        if output.resolve().is_relative_to(plan.root.resolve()):
            raise ConfigurationError(f"{output} is inside the data set.", remedy="Choose a folder elsewhere.")
        return
    if plan.root.resolve() != (project / "data").resolve():
        raise DataError(
            f"{plan.root} is not ./data, and only that is replaced.",
            remedy="Give a new folder with -o, or run this in the root of the project whose ./data was audited.",
        )
    refuse_unless_replaceable(project, project / ".data")


def write_changed(plan: LabelChanges, output: Path) -> str:
    """Write the data set with the changed labels to a new folder; that of the plan stays as it is.

    Files whose content does not change are copied, so equal input gives equal bytes.

    Args:
        plan: The changes.
        output: A folder that is missing or empty.

    Returns:
        Its data version.

    Raises:
        DataError: The folder is not empty, or a file cannot be copied or has changed meanwhile.
        LockedError: Another process writes it.
    """
    with new_folder(output) as partial:
        return _write_files(plan, partial)


def install_changed(plan: LabelChanges, project: Path) -> str:
    """Replace `./data` by the data set with the changed labels and pin it; DVC's cache keeps the old masks.

    Args:
        plan: The changes; its data set is `./data`.
        project: Root of the project.

    Returns:
        The data version now pinned.

    Raises:
        DataError: If `./data` cannot be replaced safely, or a file cannot be copied or has changed meanwhile.
        LockedError: Another process replaces `./data`.
    """
    with replacing(project), TemporaryDirectory(prefix=".data-", dir=project) as work:
        refuse_place(plan, None, project)
        if directory_digest(plan.root)[0] != plan.version:
            raise DataError(f"{plan.root} has changed meanwhile.", remedy="Run this again.")
        _write_files(plan, Path(work, "copy"))
        return install_and_pin(project, Path(work, "copy"), keep=False)


def _write_files(plan: LabelChanges, folder: Path) -> str:
    """Write all files of the new data set, and return its version."""
    digests = dict(plan.digests)
    changes = changes_file(plan)
    try:
        for name, digest in plan.digests.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in plan.masks:
                write_array(path, "mask", plan.masks[name])
                digests[name] = file_digest(path)
            elif name != LABEL_CHANGES:
                shutil.copyfile(plan.root / name, path)
                if file_digest(path) != digest:
                    raise DataError(f"{plan.root / name} has changed meanwhile.", remedy="Run this again.")
        (folder / LABEL_CHANGES).write_bytes(changes)
    except OSError as error:
        raise DataError(
            f"{plan.root} could not be copied: {error}.", remedy="Make room on the disk, then run this again."
        ) from error
    return listing_digest(digests | {LABEL_CHANGES: content_digest(changes)})


def describe_changes(plan: LabelChanges) -> str:
    """Return what the verdicts change, as a short text."""
    said = [f"{plan.verdicts[name]} {name or 'without verdict'}" for name in ("wrong", "right", "unsure", "")]
    lines = [f"verdicts: {', '.join(said)}"]
    if plan.drawn_without_verdict:
        lines.append(f"note: {plan.drawn_without_verdict} polygons were drawn and have no verdict; wrong adds them")
    kinds = {change.id: change.kind for change in plan.changes}
    counts = [f"{sum(kind == name for kind in kinds.values())} {done}" for name, done in _DONE.items()]
    idle = kinds.keys() - {change.id for change in plan.changes if change.pixels_added or change.pixels_removed}
    numbers = dict(zip(plan.table["mask"], plan.table["number"], strict=True))
    before = int(plan.table["positive_pixels"].sum())
    after = before + plan.pixels_added - plan.pixels_removed
    n_pixels = len(plan.table) * PATCH_SIZE**2
    lines += [
        f"landslides: {', '.join(counts)}",
        *([f"note: nothing changes by {first_few(sorted(idle))}"] if idle else []),
        f"patches that change: {len(plan.masks)} of {len(plan.table):,}"
        + (f" ({first_few([str(numbers[name]) for name in plan.masks], 20)})" if plan.masks else ""),
        f"pixels: {plan.pixels_added:,} added, {plan.pixels_removed:,} removed",
        f"landslides cover {100 * before / n_pixels:.3f} % of the patches, then {100 * after / n_pixels:.3f} %",
    ]
    return "\n".join(lines)
