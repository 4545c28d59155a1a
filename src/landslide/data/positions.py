"""Scene, row and column of training patches, from scenes.csv or the table of the official set."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from landslide.data.patches import numbered_files
from landslide.data.read_errors import explain, refuse_pipe
from landslide.errors import DataError, first_few
from landslide.schema import LAYOUTS, POSITION_COLUMNS, Positions

_OFFICIAL_PATCHES = 3799

_TOO_LARGE = 10**18  # int64 holds all numbers below

# Patches and row stride of each scene, in file order; the last patch is a separate scene.
_OFFICIAL_SCENES = ((3033, 41), (150, 15), (121, 11), (494, 26), (1, 1))


def read_positions(root: Path, numbers: Sequence[int], *, positions: Positions = "auto") -> pd.DataFrame:
    """Scene, row and column of training patches; the patch files themselves carry no position.

    They come from `scenes.csv` in `root` (header `n,scene,row,column`, whole numbers from 0; further columns are not
    read) if it exists, otherwise from the built-in table of the official Landslide4Sense training set, if this is that
    set.

    Args:
        root: Folder of the data set.
        numbers: Patch numbers, in the order of the result's rows.
        positions: "auto" takes a set for the official one when it holds exactly the numbers 1 to 3799;
            "landslide4sense" declares it to be (a part of) that set; "none" means no positions.

    Returns:
        Columns scene, row, column (Int64), one row per number; <NA> for unknown positions.

    Raises:
        DataError: `scenes.csv` is malformed, lists a number twice, or lacks a number; or the set is declared
            official and has a number above 3799.
    """
    path = root / "scenes.csv"
    if positions == "none":
        table = None
    elif path.exists():
        table = _read_scenes(path)
    elif positions == "landslide4sense" or _is_official(root, numbers):
        path = Path("the built-in Landslide4Sense table")
        table = landslide4sense_positions()
    else:
        table = None
    if table is None:
        return pd.DataFrame({name: pd.array([pd.NA] * len(numbers), "Int64") for name in POSITION_COLUMNS})
    if lacking := [str(number) for number in numbers if number not in table.index]:
        raise DataError(
            f"{path} has no position for patch {first_few(lacking)}",
            remedy="list every training patch in scenes.csv, move scenes.csv away, or set data.positions: none in the "
            "configuration",
        )
    return table.loc[list(numbers), list(POSITION_COLUMNS)].reset_index(drop=True)


def unused_lines(root: Path, numbers: Sequence[int]) -> list[str]:
    """Name the lines of `scenes.csv`, which must exist, about patches that do not: "line 5 (patch 7)".

    Args:
        root: Folder of the data set.
        numbers: Numbers of all training patches.

    Raises:
        DataError: As `read_positions`.
    """
    lines = _read_scenes(root / "scenes.csv")["line"].drop(list(numbers), errors="ignore")
    return [f"line {line} (patch {number})" for number, line in lines.items()]


def landslide4sense_positions() -> pd.DataFrame:
    """Positions of the 3,799 official training patches, which are contiguous tiles of four scenes.

    Returns:
        Columns scene (from 1), row, column (from 0), Int64, indexed by patch number. The one patch outside these
        scenes is scene 5.
    """
    rows = [
        (scene, tile // stride, tile % stride)
        for scene, (patches, stride) in enumerate(_OFFICIAL_SCENES, start=1)
        for tile in range(patches)
    ]
    index = pd.RangeIndex(1, _OFFICIAL_PATCHES + 1, name="n")
    return pd.DataFrame(rows, columns=list(POSITION_COLUMNS), index=index, dtype="Int64")


def _is_official(root: Path, numbers: Sequence[int]) -> bool:
    official = set(range(1, _OFFICIAL_PATCHES + 1))
    held = [set(numbers_of) for numbers_of in (numbers, *_numbers_on_disk(root))]
    return set(numbers) <= official and official in held


def _numbers_on_disk(root: Path) -> list[Iterable[int]]:
    return [numbered_files(root / layout["train"][0], "image") for layout in LAYOUTS]


def _read_scenes(path: Path) -> pd.DataFrame:
    header = ["n", *POSITION_COLUMNS]
    remedy = f"write it as `{','.join(header)}`, whole numbers from 0, one line per training patch"
    try:
        refuse_pipe(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader_line, line) for reader_line, line in enumerate(csv.reader(file), start=1) if line]
    except OSError as error:
        cause, how = explain(error)
        raise DataError(f"{path} cannot be read: {cause}", remedy=how) from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy=remedy) from error
    if not lines or [name.strip() for name in lines[0][1][: len(header)]] != header:
        found = ",".join(lines[0][1]) if lines else "an empty file"
        raise DataError(f"{path}: the header is {found}; expected {','.join(header)}", remedy=remedy)
    rows: dict[int, tuple[int, int, int, int]] = {}
    places: dict[tuple[int, int, int], int] = {}
    faults = []
    for line_number, line in lines[1:]:
        try:
            if len(line) != len(lines[0][1]):
                raise ValueError
            number, *place = map(int, line[: len(header)])
            scene, row, column = place
            if not all(0 <= value < _TOO_LARGE for value in (number, *place)):
                raise ValueError
        except ValueError:
            found = ",".join(line)
            faults.append(
                f"line {line_number}: found {found!r}, expected four whole numbers from 0, of 18 digits at most, "
                "and as many columns as the header has"
            )
            continue
        if number in rows:
            faults.append(f"line {line_number}: patch {number} occurs twice")
        elif (other := places.setdefault((scene, row, column), number)) != number:
            faults.append(f"line {line_number}: patch {number} is where patch {other} is")
        rows[number] = (scene, row, column, line_number)
    if faults:
        raise DataError(f"{path}, {first_few(faults)}", remedy=remedy)
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*POSITION_COLUMNS, "line"], dtype="Int64")
