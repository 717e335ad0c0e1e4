"""TensorRT's Python module as far as we use it, up to the builder. None can be installed here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx


class Parser:
    """Reads the graph with onnx itself."""

    num_errors = 1

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        self.network.graph = path
        self.network.names = [v.name for v in graph_values(Path(path))]
        return not self.network.refused

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "no importer for Foo")


class Config:
    def __init__(self) -> None:
        self.cleared: list[str] = []
        self.profiles: list[Any] = []
        self.cache = b"none was set"

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return 0

    def create_timing_cache(self, serialized: bytes) -> bytes:
        return serialized

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return cache != b"of another GPU"

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache + b"+measured")


class Builder:
    def __init__(self, logger: Any, how: dict[str, Any]) -> None:
        self.how = how

    def create_network(self, flags: int) -> Any:
        return SimpleNamespace(flags=flags, refused=self.how.get("refuses"))

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes,
            set_shape=lambda name, least, usual, most: shapes.update({name: [least, usual, most]}),
        )

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        """What a plan would be made of."""
        if self.how.get("fails") in network.graph.split("/"):
            return None
        [profile] = config.profiles
        asked = {
            "graph": network.graph,
            "strongly_typed": network.flags == 1 << 1,
            "cleared": config.cleared,
            "shapes": profile.shapes,
        }
        return json.dumps(asked).encode()


class Engine:
    """Has the tensors of the graph it was planned from, but for `lacks`."""

    def __init__(self, serialized: bytes, lacks: str | None) -> None:
        values = graph_values(Path(json.loads(serialized)["graph"]))
        self.shapes = {
            value.name: [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
            for value in values
            if value.name != lacks
        }
        self.num_io_tensors = len(self.shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.shapes[name]


def graph_values(path: Path) -> list[onnx.ValueInfoProto]:
    graph = onnx.load(path, load_external_data=False).graph
    return [*graph.input, *graph.output]
