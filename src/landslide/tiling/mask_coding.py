"""What the values of a mask mean: which of its numbers or colours are landslides."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from landslide.errors import ConfigurationError
from landslide.tiling.array_files import Array, StoredArray, UnusableFileError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER}))?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_CLEAR = ({0.0, 1.0}, {0.0, 255.0})
_LISTED = 20
_REMEDY = (
    "say which values are landslides: --landslide VALUE[,VALUE...], a range such as --landslide 0.5..1, or a colour "
    "such as --landslide '#ff0000'"
)


@dataclass(frozen=True)
class MaskValues:
    """The values of a mask.

    Attributes:
        numbers: (H, W) integers or real numbers; None if the mask has colours that are not gray.
        colours: (H, W) uint32, 0xRRGGBB; None if the mask has other numbers than those of 8 bits.
        missing: (H, W), where the file says that there is no data; its numbers are 0 there. None if it says so nowhere,
            or its no-data value is 0, which is no landslide.
        hidden: What the file holds there.
    """

    numbers: Array | None
    colours: npt.NDArray[np.uint32] | None
    missing: npt.NDArray[np.bool_] | None = None
    hidden: Array | None = None

    @classmethod
    def of(cls, stored: StoredArray) -> "MaskValues":
        """Interpret the array of a file.

        Raises:
            UnusableFileError: It is no mask.
        """
        if not stored.has_alpha and stored.values.shape[2] == 4:
            stored = StoredArray(stored.values, has_alpha=True)
        if stored.has_alpha and not (stored := stored.without_alpha()).valid.all():  # type: ignore[union-attr]
            raise UnusableFileError("mask_values", "has transparent pixels", "save the mask without transparency")
        values, missing, hidden = stored.values, None, None
        if stored.valid is not None and stored.no_data != 0 and not stored.valid.all():
            missing, hidden = ~stored.valid, values[~stored.valid][:, 0]
            values = np.where(missing[..., None], np.zeros_like(values), values)
        if values.dtype.kind == "b":
            values = values.astype(np.uint8)
        if values.shape[2] not in (1, 3):
            raise UnusableFileError(
                "wrong_shape", f"has {values.shape[2]} channels", "store masks with one channel, or in colours"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UnusableFileError("mask_values", "has values that are no numbers (NaN)", "store 0 or 1 there")
        is_gray = values.shape[2] == 1 or bool((values == values[..., :1]).all())
        if not is_gray and values.dtype != np.uint8:
            raise UnusableFileError("wrong_dtype", f"has colours of type {values.dtype}", "store colours with 8 bits")
        colours = None
        if values.dtype == np.uint8:
            parts = values if stored.palette is None else stored.palette[values[..., 0]]
            red, green, blue = (parts[..., min(i, parts.shape[2] - 1)].astype(np.uint32) for i in range(3))
            colours = np.asarray(red << 16 | green << 8 | blue, np.uint32)
        return cls(values[..., 0] if is_gray else None, colours, missing, hidden)


@dataclass
class FoundValues:
    """All values of a set of masks, and their pixels.

    Attributes:
        numbers: Of masks with numbers.
        colours: Of masks in colours.
        hidden: Values that masks declare as no data.
        colour_of: Colours of numbers that a mask shows as a colour, such as the black of a mask without landslides.
    """

    numbers: Counter[float] = field(default_factory=Counter)
    colours: Counter[int] = field(default_factory=Counter)
    hidden: Counter[float] = field(default_factory=Counter)
    colour_of: dict[float, int] = field(default_factory=dict)

    def add(self, mask: MaskValues) -> None:
        """Count the values of a mask."""
        where = np.asarray(mask.colours if mask.numbers is None else mask.numbers)
        data = np.ones(where.shape, bool) if mask.missing is None else ~mask.missing
        values, first, pixels = np.unique(where[data], return_index=True, return_counts=True)
        if mask.hidden is not None:
            found, pixels_of = np.unique(mask.hidden, return_counts=True)
            self.hidden.update(dict(zip(found.tolist(), pixels_of.tolist(), strict=True)))
        counts = dict(zip(values.tolist(), pixels.tolist(), strict=True))
        (self.colours if mask.numbers is None else self.numbers).update(counts)
        if mask.numbers is not None and mask.colours is not None:
            self.colour_of.update(zip(values.tolist(), mask.colours[data][first].tolist(), strict=True))

    @property
    def are_clear(self) -> bool:
        """Whether nobody has to say which are landslides: 0 and 1, or 0 and 255."""
        return not self.colours and any(self.numbers.keys() <= clear for clear in _CLEAR)

    def __str__(self) -> str:
        numbers, colours = self.numbers.copy(), self.colours.copy()
        for number in list(numbers) if colours else ():
            if number in self.colour_of:
                colours[self.colour_of[number]] += numbers.pop(number)
        found = [(f"{value:.6g}", pixels) for value, pixels in sorted(numbers.items())]
        found += [(f"#{value:06x}", pixels) for value, pixels in sorted(colours.items())]
        most = {value for value, _ in sorted(found, key=lambda one: -one[1])[:_LISTED]}
        text = ", ".join(f"{value} ({pixels:,} pixels)" for value, pixels in found if value in most)
        if (others := len(found) - len(most)) > 0:
            low, high = (f"{limit(numbers):.6g}" for limit in (min, max)) if numbers else ("", "")
            text += f" and {others:,} others" + (f", from {low} to {high}" if low else "")
        no_data = ", ".join(f"{value:.6g} ({pixels:,} pixels)" for value, pixels in sorted(self.hidden.items()))
        return text + (f", and as no data {no_data}" if no_data else "")

    @property
    def landslides_are_hidden(self) -> bool:
        """Whether the masks hold nothing but 0, and declare what may be landslides as no data."""
        return bool(self.hidden.keys() & {1, 255}) and not self.colours and set(self.numbers) <= {0.0}

    def unclear(self) -> tuple[str, str]:
        """Return what is wrong if the values are not clear, and the remedy."""
        return f"the masks have the values {self}", _REMEDY


class LandslideCoding:
    """Which values of masks are landslides.

    Args:
        text: Numbers, ranges `LOW..HIGH` and colours `#rrggbb`, separated by commas; None for 1 or 255, whichever there
            is beside 0.

    Raises:
        ConfigurationError: The text says none of these.
    """

    def __init__(self, text: str | None) -> None:
        self.text = text
        self._ranges: dict[str, tuple[float, float]] = {}
        self._colours: dict[str, int] = {}
        for term in (part.strip() for part in (text or "").split(",") if text is not None):
            if _COLOUR.fullmatch(term):
                self._colours[term] = int(term[1:], 16)
            elif found := _RANGE.fullmatch(term):
                self._ranges[term] = float(found[1]), float(found[2] or found[1])
            else:
                raise ConfigurationError(
                    f"--landslide: {term!r} is no number, range or colour.",
                    remedy="Write it as 1, 1,3,4, 0.5..1 or '#ff0000'.",
                )
        self._unused = {*self._ranges, *self._colours}

    def select(self, mask: MaskValues) -> npt.NDArray[np.bool_]:
        """Return where a mask has landslides, (H, W).

        Raises:
            UnusableFileError: The mask has colours and numbers are named, or the other way round.
        """
        if self.text is None:
            return np.asarray((mask.colours if mask.numbers is None else mask.numbers) != 0)
        can = (self._ranges and mask.numbers is not None) or (self._colours and mask.colours is not None)
        if not can:
            kind = "colours" if mask.numbers is None else "numbers"
            raise UnusableFileError("mask_values", f"has {kind}, and --landslide {self.text} names none", _REMEDY)
        found = dict(self._hits(mask))
        self._unused -= {term for term, hits in found.items() if hits.any()}
        return np.asarray(np.any(list(found.values()), axis=0))

    def unused(self) -> list[str]:
        """Return what was named and no mask has had so far."""
        return sorted(self._unused)

    def _hits(self, mask: MaskValues) -> Iterable[tuple[str, npt.NDArray[np.bool_]]]:
        if mask.numbers is not None:
            for term, (low, high) in self._ranges.items():
                yield term, np.asarray((mask.numbers >= low) & (mask.numbers <= high))
        if mask.colours is not None:
            for term, colour in self._colours.items():
                yield term, mask.colours == colour
