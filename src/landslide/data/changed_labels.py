"""Which labels of a data set people changed after an audit: the file `label_changes.csv`."""

import csv
from pathlib import Path

from landslide.errors import DataError
from landslide.schema import LABEL_CHANGES

CHANGES_COLUMNS = (
    *("data_version", "model_version", "id", "kind", "patch"),
    *("pixels_added", "pixels_removed", "comment"),
)
"""Columns of the file `LABEL_CHANGES`: the data version before, the model of the audit, the candidate, what was wrong,
the patch that changed, how many pixels this change alone makes landslides or no landslides, and the comment of the
person."""


def read_changed_patches(root: Path) -> set[int]:
    """Return the numbers of the patches whose labels were changed after an audit.

    Args:
        root: Folder of a data set.

    Raises:
        DataError: If its file `LABEL_CHANGES` is damaged.
    """
    path = root / LABEL_CHANGES
    if not path.exists():
        return set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if tuple(lines.fieldnames or ()) != CHANGES_COLUMNS:
                raise ValueError(f"its columns are not {', '.join(CHANGES_COLUMNS)}")
            counts = [(int(line["patch"]), int(line["pixels_added"]), int(line["pixels_removed"])) for line in lines]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", remedy="Restore it, for example with `dvc checkout`."
        ) from error
    return {patch for patch, added, removed in counts if added or removed}
