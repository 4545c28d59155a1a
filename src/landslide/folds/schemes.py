"""Fold schemes: how patches are split for cross-validation.

The paper's folds are contiguous in natural file order; fold 1 is the last fifth. The patches are tiles of a few scenes,
so a random split puts neighbouring tiles on both sides. Every run records its scheme.
"""

import re
from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.errors import ConfigurationError, DataError, first_few
from landslide.folds.clusters import cluster_blocks

Scheme = Literal["contiguous", "random", "stratified", "scene_blocked", "scene", "cluster"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
ELSEWHERE: dict[str, str] = {"scene": "another scene", "cluster": "another cluster"}
"""What the test fold is to the training part, under the schemes that test on other ground than they train on."""
GAPPED: tuple[str, ...] = ("scene_blocked", *ELSEWHERE)
"""The schemes under which training leaves out a ring of tiles around what is tested."""
# Side in tiles of the largest block of neighbouring tiles that is drawn, or put into a validation part, as a whole.
BLOCK_SIDE = 4
# The same for scene-blocked folds: larger, so that few tiles adjoin another fold, and multiples of that side.
_FOLD_BLOCK_SIDES = (12, 8)
# Number of blocks of these sides that each fold should get.
_FOLD_BLOCKS = 5
# The same for clusters: enough blocks to find groups among them, each small beside the smallest group allowed.
_CLUSTER_BLOCKS = 8


def assign(
    names: Sequence[object],
    *,
    scheme: str,
    n_folds: int = 5,
    seed: int = 0,
    positive_pixels: npt.ArrayLike | None = None,
    scenes: npt.ArrayLike | None = None,
    statistics: npt.ArrayLike | None = None,
) -> npt.NDArray[np.int64]:
    """Assign a fold to every patch.

    Args:
        names: Distinct patch names or numbers, in any order. Their natural order (`image_2` before `image_10`)
            is taken as the order of the tiles, so a patch gets the same fold in any order of the names.
        scheme: `contiguous` (the authors' protocol: fold 1 is the last fifth in natural order, fold k takes
            [int(n a), int(n b)) for (a, b) = (.8, 1), (.6, .8), (.4, .6), (.2, .4), (0, .2)), `random`, `stratified`
            (random, with equal shares of patches by landslide pixels), `scene_blocked` (blocks of neighbouring tiles
            stay together; no tile has a neighbour on the other side if training leaves out the tiles that
            `landslide.folds.parts.adjacent_to` finds), `scene` (whole scenes, the largest first, each into the fold
            with the fewest patches), or `cluster` (blocks of neighbouring tiles, grouped by their band statistics, see
            `landslide.folds.clusters`).
        n_folds: Number of folds.
        seed: Seed of the random schemes.
        positive_pixels: (n,) landslide pixels of each patch; `stratified` needs it, `scene_blocked` balances by it.
        scenes: (n, 3) scene, row and column of each patch; `scene_blocked` and `scene` need it. Without it, the blocks
            of `cluster` are runs of consecutive patches.
        statistics: (n, 2, bands) means and standard deviations of each patch's bands; `cluster` needs it.

    Returns:
        (n,) int64 fold numbers 1..n_folds in the order given; every fold holds at least one patch.

    Raises:
        ConfigurationError: On an unknown scheme, a name that occurs twice, too few patches or scenes, or a missing
            argument of the scheme.
        DataError: If `statistics` are no finite numbers.
    """
    n = len(names)
    if scheme not in SCHEMES:
        raise ConfigurationError(f"There is no fold scheme {scheme!r}.", remedy=f"Use one of {', '.join(SCHEMES)}.")
    if not 2 <= n_folds <= n:
        raise ConfigurationError(
            f"{n} patches cannot be split into {n_folds} folds.",
            remedy="Use at least 2 folds, and no more folds than there are patches.",
        )
    order = _natural_order(names)
    pixels = None if positive_pixels is None else np.asarray(positive_pixels)
    if pixels is not None:
        if pixels.shape != (n,):
            raise ConfigurationError(
                f"positive_pixels has shape {pixels.shape}, and there are {n} patches.",
                remedy="Pass one number per patch.",
            )
        pixels = pixels[order]
    rng = np.random.default_rng(seed)
    if scheme == "contiguous":
        folds = _contiguous(n, n_folds)
    elif scheme == "random":
        folds = _deal(rng.permutation(n), n_folds)
    elif scheme == "stratified":
        if pixels is None:
            raise ConfigurationError(
                "The stratified folds need the landslide pixels of every patch.",
                remedy="Pass positive_pixels, or choose another scheme.",
            )
        # Sorted by landslide pixels with random ties, then dealt out round by round in random order.
        folds = _deal(np.lexsort((rng.random(n), -pixels)), n_folds, rng)
    elif scheme == "cluster":
        described = np.asarray(statistics, np.float64)
        if described.ndim != 3 or described.shape[:2] != (n, 2):
            raise ConfigurationError(
                "The cluster folds need the band statistics of every patch.",
                remedy="Pass what landslide.data.band_statistics.patch_statistics returns, or choose another scheme.",
            )
        wrong = [str(names[place]) for place in np.flatnonzero(~np.isfinite(described).all(axis=(1, 2))).tolist()]
        if wrong:
            raise DataError(
                f"The images of {len(wrong)} patches have values that are no finite numbers: {first_few(wrong)}.",
                remedy="Mend or remove them; `landslide data check` names what is wrong.",
            )
        side = _block_side(n, _CLUSTER_BLOCKS // 2 * n_folds)  # of which two fit into each of so many parts
        positions = None if scenes is None else _checked_positions(scenes, scheme, n)[order]
        blocks = neighbour_runs(n, side) if positions is None else tile_blocks(positions, side)
        folds = cluster_blocks(described[order], blocks, n_folds, seed) + 1
    else:
        positions = _checked_positions(scenes, scheme, n)[order]
        folds = (
            _scene_blocked(positions, n_folds, rng, pixels)
            if scheme == "scene_blocked"
            else _whole_scenes(positions[:, 0], n_folds)
        )
    in_given_order = np.empty(n, np.int64)
    in_given_order[order] = folds
    return in_given_order


def _checked_positions(scenes: npt.ArrayLike | None, scheme: str, n: int) -> npt.NDArray[np.int64]:
    """Return the positions as (n, 3) int64, if there is one for every patch."""
    positions = np.asarray(scenes, dtype=object)
    if positions.shape != (n, 3) or pd.isna(positions).any():
        raise ConfigurationError(
            f"The {scheme} folds need scene, row and column of every patch, and some are missing.",
            remedy="Put a scenes.csv (n,scene,row,column) next to the data, or choose another scheme.",
        )
    return positions.astype(np.int64)


def _natural_order(names: Sequence[object]) -> npt.NDArray[np.int64]:
    """Return the indices that sort the names in natural order: numbers inside names compare as numbers."""
    twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise ConfigurationError(
            f"{len(twice)} patch names occur more than once: {first_few(twice)}.",
            remedy="Give every patch a unique name.",
        )
    return np.array(sorted(range(len(names)), key=lambda place: _natural_key(names[place])), np.int64)


def _natural_key(name: object) -> tuple[list[str | int], str]:
    """Return the alternating texts and numbers of a name, then the name itself, to distinguish `1` from `01`."""
    if isinstance(name, Integral):
        return ["", int(name)], str(name)
    parts = re.split(r"(\d+)", str(name))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(name)


def _contiguous(n: int, n_folds: int) -> npt.NDArray[np.int64]:
    edges = [n * k // n_folds for k in range(n_folds + 1)]  # int(n a) in exact arithmetic
    folds = np.empty(n, np.int64)
    for part in range(n_folds):
        folds[edges[part] : edges[part + 1]] = n_folds - part
    return folds


def _deal(order: npt.NDArray[np.int64], n_folds: int, rng: np.random.Generator | None = None) -> npt.NDArray[np.int64]:
    """Deal the patches out to the folds, round by round; with `rng` in a random order of folds each round."""
    folds = np.empty(len(order), np.int64)
    turns = [
        rng.permutation(n_folds) if rng is not None else np.arange(n_folds) for _ in range(-(-len(order) // n_folds))
    ]
    folds[order] = np.concatenate(turns)[: len(order)] + 1
    return folds


def _scene_blocked(
    positions: npt.NDArray[np.int64],
    n_folds: int,
    rng: np.random.Generator,
    positive_pixels: npt.NDArray[Any] | None,
) -> npt.NDArray[np.int64]:
    """Assign whole blocks, largest first, to the fold with the fewest patches (and landslide pixels, if known)."""
    n = len(positions)
    large = (side for side in _FOLD_BLOCK_SIDES if n >= _FOLD_BLOCKS * n_folds * side * side)
    blocks = tile_blocks(positions, next(large, _block_side(n, n_folds)))
    n_blocks = int(blocks.max()) + 1
    patches = np.bincount(blocks, minlength=n_blocks).astype(np.float64)
    load = patches / patches.sum()
    if positive_pixels is not None and np.sum(positive_pixels) > 0:
        pixels = np.bincount(blocks, weights=np.asarray(positive_pixels, np.float64), minlength=n_blocks)
        load = load + pixels / pixels.sum()
    return _deal_by_load(load, np.lexsort((rng.random(n_blocks), -load)), n_folds)[blocks]


def _whole_scenes(scenes: npt.NDArray[np.int64], n_folds: int) -> npt.NDArray[np.int64]:
    """Assign whole scenes, largest first, to the fold with the fewest patches; of equal ones by number."""
    numbers, scene_of_patch, patches = np.unique(scenes, return_inverse=True, return_counts=True)
    if len(numbers) < n_folds:
        fewer = f"Set folds.n_folds to {len(numbers)}" + (" or fewer, or use" if len(numbers) > 2 else ", or use")
        raise ConfigurationError(
            f"The patches are of {len(numbers)} scene{'s' if len(numbers) > 1 else ''}, too few for {n_folds} folds of "
            "whole scenes.",
            remedy=f"{fewer if len(numbers) > 1 else 'Use'} folds.scheme: cluster, whose folds are groups of similar "
            "ground.",
        )
    order = np.argsort(-patches, kind="stable")
    return _deal_by_load(patches.astype(np.float64), order, n_folds)[scene_of_patch.reshape(-1)]


def _deal_by_load(load: npt.NDArray[np.float64], order: npt.NDArray[np.int64], n_folds: int) -> npt.NDArray[np.int64]:
    """Deal out parts in an order, each to the fold with the smallest load so far; return the fold of each part."""
    fold_load = np.zeros(n_folds)
    folds = np.empty(len(load), np.int64)
    for part in order:
        folds[part] = np.argmin(fold_load)
        fold_load[folds[part]] += load[part]
    return folds + 1


def _block_side(n: int, parts: int) -> int:
    """Return the largest block side, up to `BLOCK_SIDE`, that leaves about two blocks for each part."""
    return next((side for side in range(BLOCK_SIDE, 1, -1) if n >= 2 * parts * side * side), 1)


def tile_blocks(positions: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    """Number the blocks of neighbouring tiles.

    Args:
        positions: (n, 3) scene, row, column.
        side: Side of a block in tiles.

    Returns:
        (n,) block numbers from 0; tiles of one block share a scene and a square of side x side tiles.
    """
    keys = np.stack([positions[:, 0], positions[:, 1] // side, positions[:, 2] // side], axis=1)
    return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1]).reshape(-1).astype(np.int64)


def neighbour_runs(n: int, side: int) -> npt.NDArray[np.int64]:
    """Number runs of side x side consecutive patches: the substitute for blocks if positions are unknown."""
    return np.arange(n) // (side * side)


def neighbour_blocks(table: pd.DataFrame, parts: int) -> npt.NDArray[np.int64]:
    """Number blocks of neighbouring patches, small enough that about two fit into each of `parts` parts.

    Args:
        table: Patch table in natural order with columns scene, row and column, possibly missing.
        parts: Number of parts among which the blocks will be divided.

    Returns:
        (n,) block numbers: squares of tiles if all positions are known, runs of consecutive patches otherwise.
    """
    side = _block_side(len(table), parts)
    positions = table[["scene", "row", "column"]]
    if positions.isna().any(axis=None):
        return neighbour_runs(len(table), side)
    return tile_blocks(positions.to_numpy(np.int64), side)
