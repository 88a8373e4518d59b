"""YAML and JSON loaders for files that users write: they refuse duplicate keys and expansion bombs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import yaml

# Far more than options need, and quick to read: a sweep of 10,000 rows of 4 options has 90,000 values.
MOST_VALUES = 100_000
DEEPEST_NESTING = 32
LARGEST_EXPANSION = 1 << 21  # characters and values, with every alias expanded
LONGEST_NUMBER = 100  # characters; a long one in base 60 or 16 is slow to parse and to print
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class DuplicateKey(ValueError):
    """A JSON object names a key twice, or a number is not finite."""


class OutOfBounds(ValueError):
    """More values, deeper nesting or longer numbers than any file of options has."""


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of a JSON reader; DuplicateKey for a key that appears twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        names = ", ".join(name if name.isprintable() and len(name) <= 80 else ascii(name[:80]) for name in twice[:10])
        raise DuplicateKey(f"key {names} appears twice: keep one")
    return content


def require_bounded(content: Any, *, most_values: int = MOST_VALUES, deepest: int = DEEPEST_NESTING) -> Any:
    """Return the parsed JSON; OutOfBounds if it has more than `most_values` values or is nested too deeply."""
    level, current, values = 0, [content], 1
    while nested := [item for item in current if isinstance(item, dict | list)]:
        level += 1
        if level > deepest:
            raise OutOfBounds(f"it is nested too deeply: at most {deepest} levels")
        values += sum(map(len, nested))
        if values > most_values:
            raise OutOfBounds(f"it holds more than {most_values:,} values: remove what is not an option")
        current = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
    return content


class UniqueKeyLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` that raises ComposerError, with both lines, for a key that one mapping has twice.

    Keys are compared as they are written, before `<<` merges: an override of a merged key is not a duplicate. Raises
    OutOfBounds while it composes, before an alias is expanded, a merge made or a number read.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._measured: dict[int, tuple[int, int]] = {}  # node -> size and depth, with its aliases expanded

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one value of the file, or the value that an alias refers to."""
        self._values += 1
        self._depth += 1
        line, is_alias = self.peek_event().start_mark.line + 1, self.check_event(yaml.AliasEvent)
        if self._values > MOST_VALUES:
            raise OutOfBounds(f"line {line}: it holds more than {MOST_VALUES:,} values: remove what is not an option")
        if self._depth > DEEPEST_NESTING:
            raise OutOfBounds(f"line {line}: it is nested too deeply: at most {DEEPEST_NESTING} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._measured[id(node)] = self._measure(node, line)
        elif id(node) not in self._measured:
            raise OutOfBounds(f"line {line}: an alias is inside the value that it names: write the value out")
        return node

    def _measure(self, node: Any, line: int) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            if node.tag in NUMBER_TAGS and len(node.value) > LONGEST_NUMBER:
                raise OutOfBounds(f"line {line}: a number of {len(node.value)} characters: at most {LONGEST_NUMBER}")
            return len(node.value) + 1, 0
        pairs = isinstance(node, yaml.MappingNode)
        inner = [self._measured[id(child)] for item in node.value for child in (item if pairs else (item,))]
        size = 1 + sum(size for size, _ in inner)
        depth = 1 + max((depth for _, depth in inner), default=0)
        if size > LARGEST_EXPANSION or depth > DEEPEST_NESTING:
            raise OutOfBounds(f"line {line}: its aliases expand to far more than options need: write the values out")
        return size, depth

    def compose_mapping_node(self, anchor: Any) -> Any:
        """One mapping of the file, in the order of its keys."""
        mapping = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode) and (before := first.setdefault((key.tag, key.value), key)) is not key:
                message = f"key {key.value} is in line {before.start_mark.line + 1} and again here: keep one"
                raise yaml.composer.ComposerError(None, None, message, key.start_mark)
        return mapping


def parse_yaml(text: str) -> Any:
    """Plain values only, as `yaml.safe_load`.

    Raises yaml.YAMLError for broken text and for a key that appears twice, ValueError for values out of bounds.
    """
    return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader


def parse_json(text: str) -> Any:
    """JSON with the same bounds; ValueError for broken text, a key twice, a number of thousands of digits."""
    try:
        return require_bounded(json.loads(text, object_pairs_hook=without_duplicates))
    except RecursionError as error:
        raise OutOfBounds(f"it is nested too deeply: at most {DEEPEST_NESTING} levels") from error
