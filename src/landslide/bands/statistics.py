"""Statistics of the bands and the classes of a set of patches, and the drift between two sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.bands.cache import BandCache

_SHARES = {
    "landslide_share": "of the pixels are landslides",
    "positive_share": "of the patches hold a landslide",
}


def band_statistics(
    cache: BandCache, rows: npt.NDArray[np.int64], band_names: tuple[str, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of every band over all pixels of the rows; exactly 0 for a constant band.

    Args:
        cache: The band cache.
        rows: (n,) rows of it, at least one.
        band_names: The bands, C of them.

    Returns:
        Two (C,) arrays, computed in float64.
    """
    columns = cache.columns(band_names)
    total, squares = np.zeros(len(columns)), np.zeros(len(columns))
    # Relative to one of the values: the squares of large values would cancel out what varies.
    origin = cache.bands[rows[0]][columns, 0, 0].astype(np.float64)
    for row in rows:
        values = cache.bands[row][columns].reshape(len(columns), -1).astype(np.float64) - origin[:, None]
        total += values.sum(axis=1)
        squares += np.einsum("cp,cp->c", values, values)
    n = len(rows) * cache.masks[0].size
    mean = total / n
    return origin + mean, np.sqrt(np.maximum(squares / n - mean**2, 0.0))


def describe(cache: BandCache, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Describe a set of patches, as the reference for later sets.

    Args:
        cache: The band cache.
        rows: (n,) rows of it, at least one.

    Returns:
        Plain values: patches, positive_patches, landslide_share (fraction of the pixels), and bands: mean and std
        by band name.
    """
    mean, std = band_statistics(cache, rows, cache.band_names)
    landslides = np.array([int(cache.masks[row].sum()) for row in rows])
    return {
        "patches": len(rows),
        "positive_patches": int((landslides > 0).sum()),
        "landslide_share": float(landslides.sum() / (len(rows) * cache.masks[0].size)),
        "bands": {
            name: {"mean": float(m), "std": float(s)} for name, m, s in zip(cache.band_names, mean, std, strict=True)
        },
    }


def describe_drift(table: pd.DataFrame, patches: str) -> str:
    """Return a drift as a sentence, empty if there is none.

    Args:
        table: The rows of `drift` that are worth telling.
        patches: What the newer set is, such as "the new patches".
    """
    parts = []
    for name, old, new, shift in table[["quantity", "reference", "current", "shift"]].itertuples(index=False):
        if name in _SHARES:
            parts.append(f"{100 * new:.2f} % {_SHARES[name]} instead of {100 * old:.2f} %")
        elif np.isinf(shift):
            parts.append(f"the mean of {name} is {new:.4g}, which was {old:.4g} everywhere")
        else:
            side = "higher" if shift > 0 else "lower"
            parts.append(f"the mean of {name} is {abs(shift):.2f} standard deviations {side}")
    return f"Compared with the champion's training data, in {patches} {'; '.join(parts)}." if parts else ""


def drift(reference: Mapping[str, Any], current: Mapping[str, Any]) -> pd.DataFrame:
    """Compare two descriptions of `describe`.

    Args:
        reference: The older set.
        current: The newer set.

    Returns:
        One row per quantity: `landslide_share`, `positive_share` (of the patches), then the bands that both have.
        Columns: quantity, reference, current (shares, or means of the band), shift (bands: difference of the means in
        standard deviations of the reference; shares: natural logarithm of the ratio), and spread (bands: ratio of the
        standard deviations). The shift is infinite if the reference is 0 or constant and the current set is not.
    """
    shares = [
        ("landslide_share", reference["landslide_share"], current["landslide_share"]),
        ("positive_share", *(d["positive_patches"] / d["patches"] for d in (reference, current))),
    ]
    with np.errstate(divide="ignore"):
        records = [
            (name, old, new, 0.0 if old == new else float(np.log(new) - np.log(old)), np.nan)
            for name, old, new in shares
        ]
    for name, new in current["bands"].items():
        old = reference["bands"].get(name)
        if old is not None:
            difference, std = new["mean"] - old["mean"], old["std"]
            shift = difference / std if std > 0 else (0.0 if difference == 0 else np.copysign(np.inf, difference))
            records.append((name, old["mean"], new["mean"], float(shift), new["std"] / std if std > 0 else np.nan))
    return pd.DataFrame(records, columns=["quantity", "reference", "current", "shift", "spread"])
