"""The fold table of a growing data set: patches keep their folds, and new patches join their neighbours.

A model of fold k has seen every patch of the other folds. If a patch changed its fold between two trainings, or a new
adjacent tile went to another fold, the two models could no longer be compared out of sample. The first folds come from
`landslide.folds.schemes.assign`.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.errors import ConfigurationError, DataError, first_few
from landslide.folds.clusters import most_similar_groups
from landslide.folds.schemes import BLOCK_SIDE, neighbour_runs, tile_blocks
from landslide.schema import POSITION_COLUMNS

Position = tuple[int, int, int]

# Neighbours across an edge count first; neighbours across a corner only if there are none.
_EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def extend_fold_table(
    table: pd.DataFrame,
    previous: pd.DataFrame,
    *,
    n_folds: int,
    whole_scenes: bool = False,
    statistics: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Give every patch a fold: its fold in an older table, or the fold of its neighbours.

    Patches are matched by image digest. If several images are identical, position or number decides. If the image
    changed, the position decides, or the number if there is no position. New tiles next to recognised ones take the
    fold of most of these neighbours. The others are assigned in blocks of neighbouring tiles: a block that is partly
    assigned follows as a whole, any other goes to the fold with the smallest share of patches and landslide pixels.

    Args:
        table: Patch table in natural order (see `landslide.data.table.patch_table`).
        previous: Older fold table, including removed patches: columns number, image_md5, scene, row, column and fold.
        n_folds: Number of folds.
        whole_scenes: Keep every scene in one fold, as the scheme `scene` does: new tiles take the fold of their scene,
            new scenes, the largest first, the fold with the fewest patches.
        statistics: (n, 2, bands) band statistics of the patches (see `landslide.data.band_statistics`), under the
            scheme `cluster`: a block that is not assigned goes to the fold whose ground it resembles most instead.

    Returns:
        The patch table with an int64 column `fold` (1..n_folds). If it has no positions, recognised patches get
        theirs from the older table.

    Raises:
        ConfigurationError: If the folds of the older table are not 1..n_folds.
        DataError: If a fold has no patches left.
    """
    if set(previous["fold"]) != set(range(1, n_folds + 1)):
        last = previous["fold"].max()
        raise ConfigurationError(
            f"The older fold table has the folds 1 to {last}, and folds.n_folds is {n_folds}.",
            remedy=f"Set folds.n_folds to {last}: patches keep their folds from training to training.",
        )
    fold = previous_folds(table, previous)
    table = _with_previous_positions(table, previous)
    if whole_scenes:
        _join_scenes(table, previous, fold, n_folds)
    else:
        _join_neighbours(table, previous, fold, n_folds)
    _deal_blocks(table, fold, n_folds, statistics)
    empty = sorted(set(range(1, n_folds + 1)) - set(fold.tolist()))
    if empty:
        raise DataError(
            f"Fold {empty[0]} of the older fold table has no patch left in this data set.",
            remedy="Train without an older table (pipelines.training.training_pipeline), or bring these patches back.",
        )
    return table.assign(fold=fold)


def read_folds(path: Path, table: pd.DataFrame, *, n_folds: int) -> npt.NDArray[np.int64]:
    """Read the folds of these patches from the CSV file of a recorded fold table.

    Args:
        path: The file: columns number, image_md5 and fold, one row per patch.
        table: Patch table.
        n_folds: Number of folds.

    Returns:
        (n,) fold numbers 1..n_folds in the order of the patch table.

    Raises:
        ConfigurationError: If the file is no fold table, or its folds are not 1..n_folds.
        DataError: If a patch is missing there (its number and image together).
    """
    try:
        recorded = pd.read_csv(path, usecols=["number", "image_md5", "fold"], dtype={"image_md5": str})
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"folds.table {path} cannot be read: {error}",
            remedy="Give a CSV file with columns number, image_md5 and fold, such as a run's artifact fold_table.csv.",
        ) from error
    if recorded["fold"].isna().any() or set(recorded["fold"]) != set(range(1, n_folds + 1)):
        raise ConfigurationError(
            f"The folds in {path} are {sorted(set(recorded['fold']))}, not 1 to {n_folds}.",
            remedy="Set folds.n_folds to the number in the table, or give another table.",
        )
    fold_of = dict(zip(zip(recorded["number"], recorded["image_md5"], strict=True), recorded["fold"], strict=True))
    patches = list(zip(table["number"], table["image_md5"], strict=True))
    if missing := [number for number, image in patches if (number, image) not in fold_of]:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{len(missing)} of {len(patches)} patches are not in {path} with this number and image: {shown}.",
            remedy="Give the table of exactly this data version.",
        )
    return np.array([fold_of[patch] for patch in patches], np.int64)


def refuse_shared_images(table: pd.DataFrame) -> None:
    """Raise if an image is in several folds: a model would be tested on what it was trained on.

    Args:
        table: Fold table: columns number, image_md5 and fold.

    Raises:
        DataError: If an image is in several folds; the numbers of its patches are named.
    """
    folds_of_image = table.groupby("image_md5", sort=False)["fold"].nunique()
    shared = table[table["image_md5"].isin(folds_of_image.index[folds_of_image > 1])]
    if shared.empty:
        return
    groups = [
        " = ".join(f"{number} (fold {fold})" for number, fold in zip(rows["number"], rows["fold"], strict=True))
        for _, rows in shared.groupby("image_md5", sort=False)
    ]
    raise DataError(
        f"{len(groups)} image(s) are in several folds, so models would be tested on patches that they were trained on. "
        f"Patches with the same image: {first_few(groups)}.",
        remedy="Keep one patch of each image (`landslide data check` lists them), or set folds.allow_duplicates: true.",
    )


def folds_without_landslides(table: pd.DataFrame) -> list[int]:
    """Return the folds, ascending, whose masks hold no landslide pixel.

    Args:
        table: Fold table: columns fold and positive_pixels.
    """
    pixels = table.groupby("fold")["positive_pixels"].sum()
    return [int(fold) for fold in pixels.index[pixels == 0]]


def previous_folds(table: pd.DataFrame, previous: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the fold of each patch in an older table, 0 for patches that are missing there.

    Args:
        table: Patch table.
        previous: Older fold table; the columns are those of `extend_fold_table`.
    """
    rows = previous_rows(table, previous)
    folds = np.append(previous["fold"].to_numpy(np.int64), 0)  # row -1 is the last one
    return np.asarray(folds[rows])


def previous_rows(table: pd.DataFrame, previous: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return where each patch is in an older table, as a row number from 0; -1 for patches that are missing there.

    Args:
        table: Patch table.
        previous: Older fold table; the columns are those of `extend_fold_table`.
    """
    old_positions, positions = _positions(previous), _positions(table)
    placed = zip(previous["image_md5"], old_positions, strict=True)
    counted = range(1, len(previous) + 1)
    by_image_and_position = _first((pair if pair[1] is not None else None for pair in placed), counted)
    by_image_and_number = _first(zip(previous["image_md5"], previous["number"], strict=True), counted)
    by_image = _first(previous["image_md5"], counted)
    by_position = _first(old_positions, counted)
    # A number identifies only an image that is gone; an image that is still present was renumbered.
    gone = ~previous["image_md5"].isin(table["image_md5"])
    nowhere = all(position is None for position in positions)
    numbers = zip(previous["number"], gone, old_positions, strict=True)
    without_position = _first((n if g and (nowhere or p is None) else None for n, g, p in numbers), counted)
    found = np.zeros(len(table), np.int64)
    for i, (image, number, position) in enumerate(zip(table["image_md5"], table["number"], positions, strict=True)):
        found[i] = (
            by_image_and_position.get((image, position))
            or by_image_and_number.get((image, number))
            or by_image.get(image)
            or (by_position.get(position) if position is not None else None)
            or without_position.get(number)
            or 0
        )
    return found - 1


def _first(keys: Iterable[Hashable], values: Iterable[int]) -> dict[Hashable, int]:
    """Return the value by key, without None. Of equal keys the first counts; removed patches come last."""
    found: dict[Hashable, int] = {}
    for key, value in zip(keys, values, strict=True):
        if key is not None:
            found.setdefault(key, int(value))
    return found


def removed_patches(table: pd.DataFrame, previous: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of an older fold table whose images are missing in a newer one, or are in other folds there.

    They are kept with the fold table: models that started from older ones have seen these patches, so a patch that
    returns must return to its fold. An image whose position was corrected counts as present; if an image occurs several
    times, each of its positions counts.

    Args:
        table: Fold table.
        previous: Older fold table; the columns are those of `extend_fold_table`.
    """
    several = {image for t in (table, previous) for image in t.loc[t["image_md5"].duplicated(), "image_md5"]}

    def keys(rows: pd.DataFrame) -> list[Hashable]:
        places = zip(rows["image_md5"], rows["fold"], _positions(rows), strict=True)
        return [(image, fold, position if image in several else None) for image, fold, position in places]

    kept = set(keys(table))
    return previous[np.array([key not in kept for key in keys(previous)], bool)].reset_index(drop=True)


def _with_previous_positions(table: pd.DataFrame, previous: pd.DataFrame) -> pd.DataFrame:
    """Copy positions from the older table if the new one has none.

    This happens when patches are added to the official set, which has no `scenes.csv`.
    """
    if has_position(table).any():
        return table
    columns = list(POSITION_COLUMNS)
    once = previous[~previous["image_md5"].duplicated(keep=False)].set_index("image_md5")
    gone = previous[~previous["image_md5"].isin(table["image_md5"])].drop_duplicates("number").set_index("number")
    changed = ~table["image_md5"].isin(previous["image_md5"])
    where = once[columns].reindex(table["image_md5"]).set_axis(table.index)
    where[changed] = gone[columns].reindex(table.loc[changed, "number"]).to_numpy()
    return table.assign(**where.astype("Int64"))


def _positions(table: pd.DataFrame) -> list[Position | None]:
    values = table[list(POSITION_COLUMNS)].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    return [None if np.isnan(row).any() else (int(row[0]), int(row[1]), int(row[2])) for row in values]


def _join_neighbours(table: pd.DataFrame, previous: pd.DataFrame, fold: npt.NDArray[np.int64], n_folds: int) -> None:
    """Give new tiles next to recognised ones the fold of most of these neighbours, in place."""
    positions = _positions(table)
    fold_at = _first(_positions(previous), previous["fold"])
    fold_at |= {p: int(f) for p, f in zip(positions, fold, strict=True) if p is not None and f}
    size = np.bincount(fold, minlength=n_folds + 1)
    for i in np.flatnonzero(fold == 0):
        position = positions[i]
        if position is None:
            continue
        votes = _votes(position, _EDGES, fold_at) or _votes(position, _CORNERS, fold_at)
        if votes:
            fold[i] = min(votes, key=lambda f: (-votes[f], size[f], f))


def _join_scenes(table: pd.DataFrame, previous: pd.DataFrame, fold: npt.NDArray[np.int64], n_folds: int) -> None:
    """Give new tiles the fold of their scene, and new scenes the fold with the fewest patches, in place."""
    scenes = table["scene"]
    for scene in scenes[(fold == 0) & scenes.notna()].value_counts(sort=True).index:
        members = (scenes == scene).fillna(False).to_numpy(bool)
        known = [*previous.loc[(previous["scene"] == scene).fillna(False), "fold"], *fold[members & (fold > 0)]]
        smallest = int(np.bincount(fold, minlength=n_folds + 1)[1:].argmin()) + 1
        fold[members & (fold == 0)] = Counter(known).most_common(1)[0][0] if known else smallest


def _votes(position: Position, offsets: Iterable[tuple[int, int]], fold_at: dict[Hashable, int]) -> Counter[int]:
    scene, row, column = position
    around = [(scene, row + down, column + right) for down, right in offsets]
    return Counter(fold_at[p] for p in around if p in fold_at)


def _deal_blocks(
    table: pd.DataFrame,
    fold: npt.NDArray[np.int64],
    n_folds: int,
    statistics: npt.NDArray[np.float64] | None,
) -> None:
    """Assign the remaining patches, block by block, to the smallest fold or by band statistics, in place.

    A block that is partly assigned through its neighbours follows as a whole.
    """
    new = np.flatnonzero(fold == 0)
    if len(new) == 0:
        return
    blocks = _blocks(table)
    pixels = table["positive_pixels"].to_numpy(np.float64)
    similar = None if statistics is None else most_similar_groups(statistics, blocks, fold)
    drawn = set(blocks[(fold > 0) & has_position(table)].tolist())
    for block in np.unique(blocks[new]):
        members = new[blocks[new] == block]
        if block in drawn:
            neighbours = fold[(blocks == block) & (fold > 0)]
            fold[members] = np.bincount(neighbours).argmax()
            continue
        if similar is not None:
            fold[members] = similar[block]
            continue
        load = np.bincount(fold, minlength=n_folds + 1)[1:] / len(table)
        load = load + np.bincount(fold, weights=pixels, minlength=n_folds + 1)[1:] / max(pixels.sum(), 1.0)
        fold[members] = int(np.argmin(load)) + 1


def has_position(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which patches have scene, row and column."""
    return table[list(POSITION_COLUMNS)].notna().all(axis=1).to_numpy(bool)


def _blocks(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number blocks of neighbouring tiles, then runs of the patches without position."""
    placed = has_position(table)
    tiles = tile_blocks(table.loc[placed, list(POSITION_COLUMNS)].to_numpy(np.int64), BLOCK_SIDE)
    blocks = np.empty(len(table), np.int64)
    blocks[placed] = tiles
    blocks[~placed] = neighbour_runs(int((~placed).sum()), BLOCK_SIDE) + tiles.max(initial=-1) + 1
    return blocks
