"""YAML that people write, read strictly: a key that occurs twice is an error, as the standard of YAML demands."""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, SequenceNode


def load(text: str, name: str) -> Any:
    """Read YAML as `yaml.safe_load` does, but refuse what it would take silently or fail on.

    Args:
        text: The YAML.
        name: What messages call it, such as the path of its file.

    Raises:
        yaml.YAMLError: If it is no YAML, a mapping has a key twice, an anchor holds itself, or a value is none (such as
            the date 2026-02-30). The message has the name, the line and the column.
    """
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    except ValueError as error:
        raise yaml.YAMLError(f'{error}\n  in "{name}"') from error
    except RecursionError as error:
        raise yaml.YAMLError(f'it is nested too deeply\n  in "{name}"') from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """The checks are made where nodes are composed: later, `<<` has merged the keys of other mappings."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open: set[Any] = set()

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent) and event.anchor in self._open:
            raise ComposerError(None, None, f"the anchor {event.anchor!r} holds itself", event.start_mark)
        return super().compose_node(parent, index)

    def compose_sequence_node(self, anchor: Any) -> SequenceNode:
        self._open.add(anchor)
        node = super().compose_sequence_node(anchor)
        self._open.discard(anchor)
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        self._open.add(anchor)
        node = super().compose_mapping_node(anchor)
        self._open.discard(anchor)
        keys = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in keys:
                raise ComposerError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
            keys.add((key.tag, str(key.value)))
        return node
