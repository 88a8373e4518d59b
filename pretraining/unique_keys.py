"""YAML and JSON as users write them: a mapping that has a key twice is refused, where the parsers drop the first."""

from __future__ import annotations

from typing import Any

import yaml


class DuplicateKey(ValueError):
    """A JSON object names a key twice, or a number is not finite."""


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of a JSON reader; DuplicateKey for a key that stands there twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DuplicateKey(f"key {', '.join(twice)} stands there twice: keep one")
    return content


class UniqueKeyLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` that raises ComposerError, with both lines, for a key that one mapping has twice.

    Keys are compared as they are written, before `<<` merges: an override of a merged key is no double.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        """One mapping of the file, in the order of its keys."""
        mapping = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], Any] = {}
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode) and (before := first.setdefault((key.tag, key.value), key)) is not key:
                told = f"key {key.value} stands in line {before.start_mark.line + 1} and again here: keep one"
                raise yaml.composer.ComposerError(None, None, told, key.start_mark)
        return mapping


def parse_yaml(text: str) -> Any:
    """Plain values only, as `yaml.safe_load`; yaml.YAMLError for broken text and for a key that stands there twice."""
    return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader
