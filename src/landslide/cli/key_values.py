"""Options of the form KEY=VALUE."""

from collections.abc import Sequence
from typing import Any

import click


def parse_key_values(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Read KEY=VALUE; the value is read as YAML, strictly.

    Args:
        texts: What was given.
        option: The name of the option, for messages.

    Raises:
        click.BadParameter: If a text has another form, or a key is given twice.
    """
    import yaml

    from landslide import strict_yaml

    if wrong := [text for text in texts if not text.partition("=")[0] or "=" not in text]:
        raise click.BadParameter(f"{', '.join(map(repr, wrong))} is not KEY=VALUE", param_hint=option)
    pairs = [(key, value) for key, _, value in (text.partition("=") for text in texts)]
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise click.BadParameter(f"{twice[0]!r} is given twice", param_hint=option)
    try:
        return {key: strict_yaml.load(value, key) for key, value in pairs}
    except yaml.YAMLError as error:
        raise click.BadParameter(f"not a value of YAML: {error}", param_hint=option) from error
