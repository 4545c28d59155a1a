"""Options of the form KEY=VALUE."""

from collections.abc import Sequence
from typing import Any

import click


def parse_key_values(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Read KEY=VALUE; the value is read as YAML.

    Args:
        texts: What was given.
        option: The name of the option, for messages.

    Raises:
        click.BadParameter: If a text has another form.
    """
    import yaml

    pairs = [text.partition("=") for text in texts]
    if wrong := [key for key, equals, _ in pairs if not (key and equals)]:
        raise click.BadParameter(f"{wrong[0]!r} is not KEY=VALUE", param_hint=option)
    try:
        return {key: yaml.safe_load(value) for key, _, value in pairs}
    except yaml.YAMLError as error:
        raise click.BadParameter(f"not a value of YAML: {error}", param_hint=option) from error
