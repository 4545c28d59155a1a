"""Prediction of a scene by overlapping windows, blended, row of windows by row of windows.

Memory does not grow with the height of a scene: the accumulators hold one row of windows, and finished rows of pixels
are appended to raw files. From time to time the accumulators are saved, so that an interrupted prediction continues
with the same result.

The windows of a row pass through the networks in groups of fixed size, each in one thread, and are added in a fixed
order. A network's answer may differ in the last bit with the size of its batch or the number of its threads; so the
result depends neither on the number of workers nor on where a prediction was interrupted.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from landslide.files import atomic_write
from landslide.mapping.windows import blending_weights, window_side, window_starts
from landslide.products.raw_files import NO_DATA, RAW_TYPES, SCALE, row_slices
from landslide.scenes.reasons import Reason

PROGRESS = "progress.npz"
"""The saved accumulators."""

_CPU_GROUP, _GPU_GROUP = 4, 64

Floats = npt.NDArray[np.float32]


class Rows(Protocol):
    """Rows of a scene in physical units, see `landslide.scenes.reader.SceneReader`."""

    def read(self, start: int, stop: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Return the values (C, rows, width) and the reasons (rows, width) of rows `start` to `stop`."""


class Predictor(Protocol):
    """What an `Ensemble` offers, also that of another release."""

    def predict(self, images: npt.NDArray[Any], batch_size: int = ...) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (N, H, W) of raw patches (N, C, H, W); NaN where a band is NaN."""


@dataclass(frozen=True)
class Windows:
    """The windows of a scene.

    Attributes:
        height: Rows of the scene.
        width: Columns of the scene.
        overlap: Share of a window that the next one covers again.
    """

    height: int
    width: int
    overlap: float

    @cached_property
    def side(self) -> int:
        """Pixels of a window along each axis."""
        return window_side(self.height, self.width)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Where windows start along the rows."""
        return window_starts(self.height, self.side, self.overlap)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Where windows start along the columns."""
        return window_starts(self.width, self.side, self.overlap)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


@dataclass
class _Group:
    """Some windows of one row: what a worker predicts.

    Attributes:
        row: Number of the row of windows.
        columns: Where the windows start.
        values: (n, C, side, side), a copy, because the rows of the scene move on.
        valid: (n, side, side), which pixels are analysed.
    """

    row: int
    columns: list[int]
    values: Floats
    valid: npt.NDArray[np.bool_]


@dataclass
class _RowEnd:
    """No window of this row follows."""

    row: int
    reasons: npt.NDArray[np.uint8]


class Mosaic:
    """The prediction of one scene in a work folder.

    Args:
        folder: The work folder; the raw files and the saved accumulators are in it.
        windows: The windows of the scene.
        min_valid: Share of a window's pixels that must be valid, or the window is left out.
    """

    def __init__(self, folder: Path, windows: Windows, min_valid: float) -> None:
        self._folder = folder
        self._windows = windows
        self._min_valid = min_valid
        self._weights = [blending_weights(starts, windows.side) for starts in (windows.rows, windows.columns)]
        self._sums = np.zeros((3, windows.side, windows.width), np.float32)  # of probability, deviation, weight
        self._next = 0  # row of windows
        self._files: dict[str, Any] = {}
        self._save_next = 0.0

    @property
    def rows_done(self) -> int:
        """Rows of windows that a prediction in this folder need not repeat."""
        self._load()
        return self._next

    def predict(
        self,
        ensemble: Predictor,
        source: Rows,
        to_stored: Callable[[Floats], npt.NDArray[Any]],
        *,
        workers: int,
        gpu: bool = False,
        progress: Callable[[int], object] = lambda windows: None,
        save_every: float = 10.0,
    ) -> None:
        """Predict what is not yet predicted; afterwards the raw files hold the whole scene.

        Args:
            ensemble: The model.
            source: The scene.
            to_stored: Brings windows (N, C, H, W) of the source to the bands, order and units of the training patches.
            workers: Groups of windows that are predicted at the same time; each has one thread on a CPU.
            gpu: Whether the model computes on a GPU.
            progress: Called with the number of windows that were finished since the last call.
            save_every: Seconds between two saves of the accumulators.

        Raises:
            OSError: If the disk is full or the folder cannot be written.
            PredictionError: If the model's answers are not finite.
            DataError: If the scene cannot be read, or the networks do not take windows of this size.
        """
        size = _GPU_GROUP if gpu else _CPU_GROUP

        def answer(group: _Group) -> tuple[Floats, Floats]:
            images = to_stored(group.values)
            np.moveaxis(images, 1, -1)[~group.valid] = np.nan
            return ensemble.predict(images, batch_size=len(images))

        self._resume()
        self._save_next = time.monotonic() + save_every
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, "predict", initializer=_single_threaded)
        waiting: deque[tuple[_Group, Future[tuple[Floats, Floats]]] | _RowEnd] = deque()
        try:
            with closing(self._work(source, size)) as works:  # an error ends the reading before the scene is closed
                for work in works:
                    waiting.append((work, pool.submit(answer, work)) if isinstance(work, _Group) else work)
                    while len(waiting) > 2 * workers:
                        self._absorb(waiting.popleft(), progress, save_every)
            while waiting:
                self._absorb(waiting.popleft(), progress, save_every)
            self._save()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
            for file in self._files.values():
                file.close()

    def take_over(self, rows: Callable[[str, slice], npt.NDArray[Any]]) -> None:
        """Take the whole prediction of the same windows from elsewhere.

        Args:
            rows: Returns some rows of a raw file, called with the name of the file and the rows.

        Raises:
            OSError: If the disk is full or the folder cannot be written.
        """
        self._resume()
        try:
            for part in row_slices(self._windows.height):
                for name, file in self._files.items():
                    file.write(np.ascontiguousarray(rows(name, part)).data)
            self._next = len(self._windows.rows)
            self._save()
        finally:
            for file in self._files.values():
                file.close()

    def _work(self, source: Rows, size: int) -> Generator[_Group | _RowEnd, None, None]:
        """Read the scene row of windows by row of windows, one row ahead, and yield its groups.

        The rows of the scene move on in place; groups have copies.
        """
        side, starts = self._windows.side, self._windows.rows[self._next :]
        with ThreadPoolExecutor(1, "read") as reader:
            ahead = reader.submit(source.read, starts[0], starts[0] + side) if starts else None
            shape, bottom = (side, self._windows.width), 0
            values, reasons = np.empty((0, *shape), np.float32), np.empty(shape, np.uint8)
            for number, start in enumerate(starts, start=self._next):
                assert ahead is not None
                new_values, new_reasons = ahead.result()
                if not len(values):
                    values = np.empty((len(new_values), *shape), np.float32)
                kept = max(0, bottom - start)
                for layer, new in zip((*values, reasons), (*new_values, new_reasons), strict=True):
                    layer[:kept] = layer[side - kept :]
                    layer[kept:] = new
                bottom = start + side
                del new_values, new
                if number + 1 < len(self._windows.rows):
                    following = self._windows.rows[number + 1]
                    ahead = reader.submit(source.read, max(bottom, following), following + side)
                valid = reasons == Reason.ANALYSED
                enough = [x for x in self._windows.columns if valid[:, x : x + side].mean() >= self._min_valid]
                for first in range(0, len(enough), size):
                    columns = enough[first : first + size]
                    yield _Group(number, columns, _cut(values, columns, side), _cut(valid, columns, side))
                yield _RowEnd(number, reasons.copy())

    def _absorb(
        self,
        work: tuple[_Group, Future[tuple[Floats, Floats]]] | _RowEnd,
        progress: Callable[[int], object],
        save_every: float,
    ) -> None:
        """Add the answers of a group, or finish the pixels that no further window covers, and save now and then."""
        if isinstance(work, _RowEnd):
            self._finish_row(work)
            progress(len(self._windows.columns))
            if time.monotonic() >= self._save_next:
                self._save()
                self._save_next = time.monotonic() + save_every
            return
        group, future = work
        probability, deviation = future.result()
        side = self._windows.side
        down, across = self._weights
        for x, mean, std in zip(group.columns, probability, deviation, strict=True):
            weight = down[group.row][:, None] * across[self._windows.columns.index(x)]
            part = self._sums[:, :, x : x + side]
            part[0] += weight * np.nan_to_num(mean)
            part[1] += weight * np.nan_to_num(std)
            part[2] += weight

    def _finish_row(self, end: _RowEnd) -> None:
        """Append the rows of pixels to the raw files that no further window covers, and move the accumulators on."""
        starts, side = self._windows.rows, self._windows.side
        done = (starts[end.row + 1] if end.row + 1 < len(starts) else starts[end.row] + side) - starts[end.row]
        total, reasons = self._sums[2, :done], end.reasons[:done].copy()
        reasons[(reasons == Reason.ANALYSED) & (total == 0)] = Reason.TOO_LITTLE_VALID
        analysed = reasons == Reason.ANALYSED
        weights = np.where(analysed, total, 1)
        for name, sums in zip(("probability", "uncertainty"), self._sums, strict=False):
            stored = np.rint(sums[:done] / weights / np.float32(SCALE))
            self._files[name].write(np.where(analysed, stored, NO_DATA).astype(np.uint16).data)
        self._files["reasons"].write(reasons.data)
        self._sums = np.concatenate([self._sums[:, done:], np.zeros_like(self._sums[:, :done])], axis=1)
        self._next = end.row + 1

    def _save(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        with atomic_write(self._folder / PROGRESS) as path, path.open("wb") as file:
            np.savez(file, next=self._next, sums=self._sums)

    def _resume(self) -> None:
        """Take the saved prediction, if there is one, and cut the raw files to the rows that belong to it."""
        for path, size in self._load().items():
            self._files[path.stem] = file = path.open("ab")
            file.truncate(size)

    def _load(self) -> dict[Path, int]:
        """Read the saved accumulators if they are whole and all their rows are in the raw files.

        Returns:
            The bytes of each raw file that belong to them.
        """
        state = self._folder / PROGRESS
        if state.is_file():
            try:
                with np.load(state) as content:
                    found, sums = int(content["next"]), content["sums"]
            except OSError:
                raise
            except Exception:  # what numpy raises for a damaged file depends on where it is damaged
                found, sums = -1, self._sums
            if 0 <= found <= len(self._windows.rows) and sums.shape == self._sums.shape:
                self._next, self._sums = found, sums
        sizes = self._sizes()
        if all(path.is_file() and path.stat().st_size >= size for path, size in sizes.items()):
            return sizes
        self._next, self._sums = 0, np.zeros_like(self._sums)  # a folder that was half deleted: begin anew
        return self._sizes()

    def _sizes(self) -> dict[Path, int]:
        windows, starts = self._windows, self._windows.rows
        rows = windows.height if self._next == len(starts) else starts[self._next]
        return {
            self._folder / f"{name}.raw": rows * windows.width * dtype.itemsize for name, dtype in RAW_TYPES.items()
        }


def _cut(rows: npt.NDArray[Any], columns: list[int], side: int) -> npt.NDArray[Any]:
    """Return copies (n, ..., side, side) of windows."""
    return np.stack([rows[..., x : x + side] for x in columns])


def _single_threaded() -> None:
    torch.set_num_threads(1)
