"""What Triton says it serves against what the gateway's repository holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from diptych.contract import TEXTS_A_ROW, ModelSpec, Tower
from diptych.engines.base import EMBEDS, MASK, PACKED, PIXELS, TOKENS
from diptych.engines.triton_rows import ROW_CHECK
from diptych.errors import BadRepository, EngineUnavailable

# Triton's name of the element type, then the shape; -1 is any length.
Tensor: TypeAlias = tuple[str, tuple[int, ...]]

FINGERPRINT = "fingerprint_{version}"  # key of a `parameters` entry in config.pbtxt

_ASK_S = 5.0  # for what a server knows by heart
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Found:
    """What is worth knowing of a Triton that serves our model."""

    server: str  # its version
    backend: str  # what runs the towers in it
    max_batch: dict[Tower, int]  # inputs per request
    checked: frozenset[Tower]  # those that prove what their answers belong to


async def find(channel: grpc.aio.Channel, spec: ModelSpec, address: str, wait_s: float) -> Found:
    """Wait until both towers are ready at `address`, in the version of `spec`, and check them.

    Raises:
        EngineUnavailable: they are not within `wait_s`, or it has other versions only.
        BadRepository: what is there is not what `spec` describes.
    """
    triton = rpc.GRPCInferenceServiceStub(channel)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return await _found(triton, spec, address)
        except grpc.aio.AioRpcError as exc:
            reason = f"{exc.code().name}: {exc.details()}"
        except EngineUnavailable as exc:
            reason = str(exc)
        if time.monotonic() >= deadline:
            raise EngineUnavailable(f"Triton at {address}: {reason}")
        await asyncio.sleep(_POLL_S)


async def _found(triton: rpc.GRPCInferenceServiceStub, spec: ModelSpec, address: str) -> Found:
    # By Triton's default it is ready when all its models are.
    if not (await triton.ServerReady(pb.ServerReadyRequest(), timeout=_ASK_S)).ready:
        raise EngineUnavailable("is not ready")
    about = await triton.ServerMetadata(pb.ServerMetadataRequest(), timeout=_ASK_S)
    configs = {tower: await _checked(triton, spec, tower, address) for tower in Tower}
    return Found(
        server=about.version,
        backend=configs[Tower.IMAGE].backend or configs[Tower.IMAGE].platform,
        max_batch={tower: config.max_batch_size for tower, config in configs.items()},
        checked=frozenset(
            tower
            for tower, config in configs.items()
            if any(output.name == ROW_CHECK for output in config.output)
        ),
    )


async def _checked(
    triton: rpc.GRPCInferenceServiceStub, spec: ModelSpec, tower: Tower, address: str
) -> config_pb.ModelConfig:
    name = spec.folders[tower]
    try:
        metadata = await triton.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=_ASK_S)
        answer = await triton.ModelConfig(pb.ModelConfigRequest(name=name), timeout=_ASK_S)
    except grpc.aio.AioRpcError as exc:
        if exc.code() is grpc.StatusCode.NOT_FOUND:
            raise BadRepository(f"Triton at {address} does not serve {name}") from exc
        raise
    if str(spec.version) not in metadata.versions:  # not yet, perhaps
        has = ", ".join(metadata.versions) or "none"
        raise EngineUnavailable(f"has {name} in version {has}; the gateway has {spec.version}")
    check_served(spec, tower, metadata, answer.config)
    return answer.config


def check_served(
    spec: ModelSpec,
    tower: Tower,
    metadata: pb.ModelMetadataResponse,
    config: config_pb.ModelConfig,
) -> None:
    """Refuse a tower that is not the one in the gateway's repository.

    Raises:
        BadRepository: its fingerprint, or a tensor's name, type or shape differs.
    """
    if problems := list(_problems(spec, tower, metadata, config)):
        raise BadRepository(f"Triton's {spec.folders[tower]}: {'; '.join(problems)}")


def _problems(
    spec: ModelSpec,
    tower: Tower,
    metadata: pb.ModelMetadataResponse,
    config: config_pb.ModelConfig,
) -> Iterator[str]:
    key = FINGERPRINT.format(version=spec.version)
    found = config.parameters[key].string_value if key in config.parameters else ""
    if found != spec.fingerprint:
        there = f"is {found[:12]}…" if found else f"is missing (parameter {key})"
        yield f"its fingerprint {there}, the gateway's repository has {spec.fingerprint[:12]}…"
    if config.max_batch_size < 1:
        yield "max_batch_size is 0: it takes no batches"
    inputs, outputs = expected(spec, tower)
    yield from _differences("input", inputs, _tensors(metadata.inputs), closed=True)
    yield from _differences("output", outputs, _tensors(metadata.outputs), closed=False)


def expected(spec: ModelSpec, tower: Tower) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs and outputs of a tower by name, the batch included."""
    if tower is Tower.IMAGE:
        size, hidden = spec.image.size, spec.image_hidden_size
        states = {} if hidden is None else {"penultimate_hidden_state": _floats(-1, hidden)}
        pixels: Tensor = ("UINT8", (-1, size, size, 3))
        return {PIXELS: pixels}, {EMBEDS[tower]: _floats(spec.embed_dim), **states}
    names = [TOKENS, MASK] if spec.text.attention_mask else [TOKENS]
    width = spec.text_hidden_size
    packed = {PACKED: _floats(TEXTS_A_ROW, spec.embed_dim)} if PACKED in spec.outputs(tower) else {}
    return dict.fromkeys(names, ("INT64", (-1, -1))), {
        **packed,
        EMBEDS[tower]: _floats(spec.embed_dim),
        "last_hidden_state": _floats(-1, width),
        "penultimate_hidden_state": _floats(-1, width),
        "pooled": _floats(width),
    }


def _floats(*shape: int) -> Tensor:
    return "FP32", (-1, *shape)


def _tensors(described: Any) -> dict[str, Tensor]:
    return {t.name: (t.datatype, tuple(t.shape)) for t in described}


def _differences(
    kind: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, closed: bool
) -> Iterator[str]:
    """`closed`: one more over there is a difference too, since nobody would fill it."""
    for name, tensor in ours.items():
        if name not in theirs:
            yield f"{kind} {name} is missing"
        elif not _fits(tensor, theirs[name]):
            yield f"{kind} {name} is {_shown(theirs[name])}, it must be {_shown(tensor)}"
    if closed and (more := sorted(set(theirs) - set(ours))):
        yield f"{kind} {', '.join(more)} is not known here"


def _fits(ours: Tensor, theirs: Tensor) -> bool:
    (our_type, our_shape), (their_type, their_shape) = ours, theirs
    return (
        our_type == their_type
        and len(our_shape) == len(their_shape)
        and all(a in (-1, b) for a, b in zip(our_shape, their_shape, strict=True))
    )


def _shown(tensor: Tensor) -> str:
    datatype, shape = tensor
    return f"{datatype} {list(shape)}"
