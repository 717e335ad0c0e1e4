"""YAML for files that people write: nothing in it is lost silently."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """As SafeLoader, but a key that stands twice is an error, where YAML's last one would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key, times in Counter(keys).items() if times > 1]:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{repeated[0]!r} stands twice in what begins in line {line}")
        return super().construct_mapping(node, deep)
