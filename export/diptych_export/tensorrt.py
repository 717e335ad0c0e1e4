"""Published ONNX graphs in, TensorRT plans beside them out.

Written for TensorRT 10.12 and 11 after their documentation and the names in their Python bindings;
no GPU was at hand to run it on. API: docs.nvidia.com/deeplearning/tensorrt, "Python API".
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych import repository
from diptych.contract import ModelSpec, Tower
from diptych.repository import ModelFiles
from diptych_export import triton_config
from diptych_export.errors import PlanError
from diptych_export.repository import staging
from diptych_export.triton_config import KEPT_VERSIONS, Device, Target, fingerprints
from diptych_export.triton_tensors import shapes, tensors

PLAN = "model.plan"  # the name Triton looks for


def plan(root: Path, name: str, timing_cache: Path, say: Callable[[str], None]) -> list[ModelSpec]:
    """Make a plan of every graph of `name` that Triton loads, and place the model on TensorRT.

    Those are the two newest versions: Triton has one config for all of them. Plans appear in the
    repository once all are made, the config after them; graphs, specs and fingerprints stay as
    they are. What TensorRT measured is read from `timing_cache`, and written there.

    Raises:
        PlanError: there is no TensorRT, or it makes no plan of a graph; `root` is as it was.
        DiptychError: there is no such model, or its files are not those that were exported.
    """
    known = [repository.load(root, name)]
    others = repository.versions(root, name)[1:KEPT_VERSIONS]
    known += [repository.load(root, name, version) for version in others]
    trt = _tensorrt()
    newest = known[0].spec
    before = triton_config.placement(root / newest.folders[Tower.IMAGE])
    placement = replace(before, target=Target.TENSORRT, device=Device.GPU)
    with staging(root) as stage:
        made: list[tuple[Path, Path]] = []
        for files in known:
            for tower, graph in files.graphs.items():
                say(f"planning version {files.spec.version}, {tower} tower")
                found = _plan(trt, files, tower, placement.max_batch, timing_cache)
                waiting = stage / f"{tower}-{files.spec.version}"
                waiting.write_bytes(found)
                made.append((waiting, graph.with_name(PLAN)))
        for waiting, place in made:
            os.replace(waiting, place)
    # Not before: Triton, polling, would look for plans that are not there.
    older = fingerprints(root / newest.folders[Tower.IMAGE])
    triton_config.write(root, newest, placement, older)
    return [repository.load(root, name, files.spec.version).spec for files in known]


def _tensorrt() -> Any:
    """The module, imported by name: it is no dependency of ours, it comes with the GPU's image."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise PlanError(
            f"no TensorRT here ({error}); run this where Triton's TensorRT and its GPU are"
        ) from error


def _plan(trt: Any, files: ModelFiles, tower: Tower, max_batch: int, timing_cache: Path) -> bytes:
    """The plan of one graph, for the GPU at hand."""
    graph, spec = files.graphs[tower], files.spec
    if spec.precision == "int8":
        raise PlanError(f"{graph}: int8 graphs are made for CPUs; build fp16 for a GPU")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # Every tensor in the type the graph gives it. TensorRT 11 knows nothing else and ignores it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise PlanError(f"{graph}: TensorRT does not read it: {reason}")
    config = builder.create_builder_config()
    if spec.precision == "fp32":  # on by default: products of 10 bits, which the gate never saw
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(builder, files, tower, max_batch))
    _take_up(config, timing_cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise PlanError(f"{graph}: TensorRT makes no plan of it; the reason stands above")
    _keep(config, timing_cache)
    found = bytes(serialized)
    _check(trt, logger, found, graph)
    return found


def _profile(builder: Any, files: ModelFiles, tower: Tower, max_batch: int) -> Any:
    inputs, _ = tensors(files.graphs[tower])
    ranges = shapes(files.spec, inputs, max_batch)
    profile = builder.create_optimization_profile()
    for name in inputs:
        profile.set_shape(name, *(ranges[bound][name] for bound in ("min", "opt", "max")))
    return profile


def _take_up(config: Any, timing_cache: Path) -> None:
    """Use what was measured before, unless it is of another GPU or TensorRT."""
    kept = timing_cache.read_bytes() if timing_cache.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(kept), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep(config: Any, timing_cache: Path) -> None:
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = timing_cache.with_name(f"{timing_cache.name}.new")
    fresh.write_bytes(bytes(config.get_timing_cache().serialize()))
    os.replace(fresh, timing_cache)


def _check(trt: Any, logger: Any, found: bytes, graph: Path) -> None:
    """Read the plan back: it takes and answers what the graph does."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(found)
    if engine is None:
        raise PlanError(f"{graph}: TensorRT cannot read its own plan; the reason stands above")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs, outputs = tensors(graph)
    for name, (_, dims) in {**inputs, **outputs}.items():
        there = list(engine.get_tensor_shape(name))[1:] if name in names else None
        if there is None or not _fits(there, dims):
            raise PlanError(f"{graph}: the plan has {name} {there}, the graph {dims}")


def _fits(there: list[int], dims: list[int]) -> bool:
    """Either side may leave open (-1) what the other knows."""
    return len(there) == len(dims) and all(
        -1 in both or both[0] == both[1] for both in zip(there, dims, strict=True)
    )
