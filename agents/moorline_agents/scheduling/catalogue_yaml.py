"""The text of a catalogue's file, as YAML of which every scalar is a text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from moorline_migrations.errors import ConfigurationError

LARGEST = 1_000_000
"""Characters that a file may have."""


def loaded(text: str) -> Any:
    """What the file holds, every scalar as text: to YAML itself, 9:30 is a number and `no` a truth value. Raises
    `ConfigurationError`."""
    import yaml  # noqa: PLC0415 - only files need it

    class Loader(yaml.BaseLoader):
        """Refuses a mapping that names something twice, of which YAML would keep the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := sorted(name for name, number in names.items() if number > 1):
                raise yaml.YAMLError(f"{', '.join(twice)} is there twice, line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep=deep)

    if len(text) > LARGEST:
        raise ConfigurationError(f"The catalogue has {len(text):,} characters, but only {LARGEST:,} are allowed.")
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - it makes texts, lists and mappings only
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(
            f"The catalogue is no YAML that can be used, and nothing was changed: {error}"
        ) from error
