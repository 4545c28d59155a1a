"""Which mask belongs to which image, by what their names have in common."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

Key = tuple[str | int, ...]
_Token = tuple[str | int, int]  # and how often it came before in the name

_TOO_LARGE = 10**18  # the names of patches have 18 digits at most


@dataclass(frozen=True)
class NamePairs:
    """Images and masks that belong together, and the others.

    Attributes:
        pairs: Image and mask by what distinguishes them from the other pairs, in natural order.
        images: Images without a mask.
        masks: Masks without an image.
        twice: Files of one kind that their names do not distinguish, such as image_1.png and image_01.png.
    """

    pairs: dict[Key, tuple[str, str]]
    images: list[str]
    masks: list[str]
    twice: list[list[str]]


def pair_names(images: Sequence[str], masks: Sequence[str]) -> NamePairs:
    """Pair images and masks by their names.

    A name is a row of words and numbers; case, separators, leading zeros and the suffix do not count. What all names of
    a kind share, such as `image` or a folder, is left out as far as the other kind does without it.

    Args:
        images: Paths below one folder, with forward slashes.
        masks: Likewise.
    """
    names = [{path: _tokens(path) for path in paths} for paths in (images, masks)]
    shared = [_shared(list(each.values())) for each in names]
    present = [{token for name in each.values() for token in name} for each in names]
    other: list[Callable[[int], set[_Token]]] = [
        lambda kind: shared[kind] - present[1 - kind],
        lambda kind: shared[kind],
    ]
    # Least is left out first; more only if it pairs more.
    attempts = [_paired(*(_keys(names[kind], left_out(kind)) for kind in (0, 1))) for left_out in other]
    return max(attempts, key=lambda attempt: len(attempt.pairs))


def distinct_numbers(keys: Sequence[Key]) -> list[int] | None:
    """Return the number of each key that distinguishes it from all others; None if there is not one in each."""
    numbers = [[part for part in key if isinstance(part, int)] for key in keys]
    shared = set(numbers[0]).intersection(*numbers) if len(keys) > 1 else set()
    left = [[number for number in each if number not in shared] for each in numbers]
    found = [each[0] for each in left if len(each) == 1 and each[0] < _TOO_LARGE]
    return found if len(set(found)) == len(keys) else None


def natural_order(key: Key) -> list[tuple[bool, str | int]]:
    """Return what sorts keys: numbers by value, before words."""
    return [(isinstance(part, str), part) for part in key]


def _tokens(path: str) -> tuple[_Token, ...]:
    text = str(PurePosixPath(path).with_suffix("")).lower()
    seen: Counter[str | int] = Counter()
    tokens = []
    for part in re.findall(r"[0-9]+|[^\W\d_]+", text):
        value = int(part) if part.isdecimal() else part
        tokens.append((value, seen[value]))
        seen[value] += 1
    return tuple(tokens)


def _shared(names: Sequence[tuple[_Token, ...]]) -> set[_Token]:
    """Return the words that most names have, and the numbers that all have."""
    counts = Counter(token for name in names for token in name)
    return {
        token
        for token, count in counts.items()
        if count == len(names) or (isinstance(token[0], str) and 2 * count > len(names))
    }


def _keys(names: Mapping[str, tuple[_Token, ...]], left_out: set[_Token]) -> dict[Key, list[str]]:
    keys: dict[Key, list[str]] = defaultdict(list)
    for path, tokens in names.items():
        keys[tuple(token[0] for token in tokens if token not in left_out)].append(path)
    return keys


def _paired(images: Mapping[Key, list[str]], masks: Mapping[Key, list[str]]) -> NamePairs:
    twice = [paths for keys in (images, masks) for paths in keys.values() if len(paths) > 1]
    pairs = {
        key: (images[key][0], masks[key][0])
        for key in sorted(images.keys() & masks.keys(), key=natural_order)
        if len(images[key]) == len(masks[key]) == 1 and not _contradict(key, images[key][0], masks[key][0])
    }
    ambiguous = {path for paths in twice for path in paths}
    used = {path for pair in pairs.values() for path in pair}
    without_image, without_mask = (
        sorted({path for paths in keys.values() for path in paths} - used - ambiguous) for keys in (masks, images)
    )
    return NamePairs(pairs, without_mask, without_image, twice)


def _contradict(key: Key, image: str, mask: str) -> bool:
    """Return whether a single image and a single mask, of which all is shared, have different numbers."""
    numbers = [{value for value, _ in _tokens(path) if isinstance(value, int)} for path in (image, mask)]
    return not key and all(numbers) and not numbers[0] & numbers[1]
