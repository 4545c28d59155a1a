"""Errors that tell the user what is wrong, where, and what to do about it."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any


class LandslideError(Exception):
    """An error that the user can act on.

    Args:
        what: What is wrong, and where (file, key, value), as one sentence.
        remedy: What the user can do about it.
    """

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(f"{what}\n  -> {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.remedy)


def _rebuild(kind: type[LandslideError], what: str, remedy: str) -> LandslideError:
    return kind(what, remedy=remedy)


class DataError(LandslideError):
    """The patches on disk are missing, damaged or different from what was declared."""


class RemoteError(DataError):
    """Data are unavailable: the server, the remote or the repository does not answer, or lacks them."""


class ConfigurationError(LandslideError):
    """A setting is unknown, out of range or contradicts another."""


class CacheError(LandslideError):
    """The band cache cannot be written or read."""


class TrainingError(LandslideError):
    """Training cannot start or continue."""


class PredictionError(LandslideError):
    """A network predicts values that are no probabilities."""


class RegistryError(LandslideError):
    """The tracking store or the model registry lacks the requested object, or is unavailable."""


class LockedError(LandslideError):
    """Another process is at work on the same thing."""


class ComparisonError(LandslideError):
    """Two models cannot be compared fairly."""


def refuse_settings_without_effect(settings: Any, group: str, names: Collection[str], *, because: str) -> None:
    """Refuse settings that have no effect.

    A value that equals the default passes, because nobody can tell whether it was written down.

    Args:
        settings: A settings dataclass.
        group: Its place in a configuration, such as `training.augmentation`.
        names: Fields that have no effect.
        because: Why, as a clause.

    Raises:
        ConfigurationError: If one of these fields has another value than its default.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in names and value != field.default:
            raise ConfigurationError(
                f"{group}.{field.name} is {value!r} and has no effect: {because}.",
                remedy=f"Leave {group}.{field.name} out.",
            )


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names of a list and state the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
