"""Checks of the options of a network, given under `model_options`."""

from collections.abc import Iterable, Mapping
from typing import Any

from landslide.errors import ConfigurationError


def require_one_of(option: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise a ConfigurationError unless an option is one of the allowed values; true is not 1."""
    if value not in tuple(allowed) or isinstance(value, bool):
        raise ConfigurationError(
            f"The network option {option} is {value!r}.", remedy=f"Use one of {', '.join(map(str, allowed))}."
        )


def require_positive(**options: Any) -> None:
    """Raise a ConfigurationError unless every option is a whole number above zero."""
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(
                f"The network option {option} is {value!r}.", remedy="Set it to a whole number of 1 or more."
            )


def require_share(**options: Any) -> None:
    """Raise a ConfigurationError unless every option is a number from 0 to 1."""
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigurationError(
                f"The network option {option} is {value!r}.", remedy="Set it to a number from 0 to 1."
            )


def require_patch_size(patch_size: Any) -> None:
    """Raise a ConfigurationError unless a patch can be halved four times."""
    require_positive(patch_size=patch_size)
    if patch_size % 16:
        raise ConfigurationError(
            f"The network option patch_size is {patch_size}.", remedy="Set it to a multiple of 16, such as 128."
        )


def require_known(where: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise a ConfigurationError if there is an option of another name than the known ones."""
    unknown = sorted(map(str, set(options) - set(known)))
    if unknown:
        blank = " In YAML, a blank follows the colon: {name: value}." if any(":" in name for name in unknown) else ""
        raise ConfigurationError(
            f"{where} does not take the option {', '.join(map(repr, unknown))}.",
            remedy=f"It takes {', '.join(sorted(set(known))) or 'no options'}.{blank}",
        )
