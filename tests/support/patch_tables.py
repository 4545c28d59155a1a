"""Patch tables without files."""

import io

import pandas as pd


def build_patch_table(images, positions=None, numbers=None, pixels=None) -> pd.DataFrame:
    """A patch table as `patch_table` gives it; positions are (scene, row, column) or None, patch by patch."""
    n = len(images)
    rows = [p if p is not None else (None, None, None) for p in (positions if positions is not None else [None] * n)]
    where = pd.DataFrame(rows, columns=["scene", "row", "column"]).astype("Int64")
    return pd.DataFrame(
        {
            "number": pd.Series(range(1, n + 1) if numbers is None else numbers, dtype="int64"),
            "image_md5": pd.Series(list(images), dtype=object),
            "positive_pixels": pd.Series([100] * n if pixels is None else pixels, dtype="int64"),
        }
    ).join(where)


def grid_positions(rows: int, columns: int, scene: int = 1) -> list[tuple[int, int, int]]:
    return [(scene, row, column) for row in range(rows) for column in range(columns)]


def image_names(positions, prefix: str = "image") -> list[str]:
    return [f"{prefix} {scene} {row} {column}" for scene, row, column in positions]


def as_recorded(table: pd.DataFrame) -> pd.DataFrame:
    """What is left of a table after it was an artifact of a run: CSV."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))
