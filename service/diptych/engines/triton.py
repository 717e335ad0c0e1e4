"""A Triton Inference Server somewhere else, over gRPC."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from diptych.contract import ModelSpec, Tower
from diptych.engines.base import Array, check_answer
from diptych.engines.breaker import Breaker
from diptych.engines.triton_checks import find
from diptych.engines.triton_rows import ROW_CHECK, mixed_up, sums_of
from diptych.engines.triton_wire import read_answer, write_request
from diptych.errors import (
    DeadlinePassed,
    DiptychError,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    one_reason,
)
from diptych.metrics import Metrics
from diptych.repository import ModelFiles
from diptych.tracing import headers

log = logging.getLogger(__name__)

_LONGEST_S = 30.0  # no batch takes longer; a server that hangs must not hold its callers for ever
_LIVE_S = 0.4  # for a server to say that it is there; its models may be busy, it is not
_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],  # the default stays with one replica
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.02s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # A budget: every failure takes one token, every success returns a tenth, below half of them
    # nothing is tried again. Retries thus add a tenth to the load at most.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

_CHANNEL: list[tuple[str, int | str]] = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_send_message_length", -1),  # bounded by the batch
    ("grpc.max_receive_message_length", -1),
    # What may be sent again must be kept; the default, 256 KiB, is two images.
    ("grpc.per_rpc_retry_buffer_size", 1 << 30),
    ("grpc.enable_http_proxy", 0),  # the server is a neighbour; a proxy is for the world outside
    # Back within a second of its return, and replicas that come or go are found when a
    # connection ends; the defaults are minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # A host that vanished mid-call says nothing. Oftener, and Triton counts it as abuse.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]

# Triton's words, which are all that tells these from other uses of the same status.
_QUEUE_FULL = "Exceeds maximum queue size"
_QUEUE_TIMEOUT = "Request timeout expired"
_DEAD_STUB = re.compile("stub process", re.IGNORECASE)


# What a call costs, in tokens of text. Other backends may run on a GPU, which wants large batches.
_CALL_TOKENS, _CALL_TOKENS_PYTHON = 256, 32


class TritonEngine:
    """Both towers of one model, run by Triton. Made by `connect`."""

    length_step = 8
    # With twice _LIVE_S less than the two seconds within which a dead server must be noticed.
    canary_every_s = 0.5
    canary_timeout_s = 0.5

    def __init__(
        self,
        spec: ModelSpec,
        channel: grpc.aio.Channel,
        *,
        max_batch: Mapping[Tower, int],
        checked: frozenset[Tower],
        description: str,
        metrics: Metrics,
        in_flight: int,
        call_tokens: int,
    ) -> None:
        self._spec = spec
        self._metrics = metrics
        self._channel = channel
        # Bytes in and out: triton_wire writes and reads them.
        self._infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            _MODEL_INFER
        )
        self._triton = rpc.GRPCInferenceServiceStub(channel)
        self._max_batch = max_batch
        self._checked = checked
        self._mixed_up = 0  # answers that were none to what was asked
        self._breakers = {
            tower: Breaker(told=metrics.breaker.labels(spec.name, tower).set) for tower in Tower
        }
        self.description = description
        self.in_flight = in_flight
        self.call_tokens = call_tokens

    @classmethod
    async def connect(
        cls,
        address: str,
        files: ModelFiles,
        *,
        wait_s: float = 30.0,
        replicas: int = 1,
        metrics: Metrics | None = None,
    ) -> TritonEngine:
        """Wait for Triton at `address` to have both towers ready, and check that they are ours.

        `address` is HOST:PORT, where every address that DNS knows for HOST is a replica and gets
        its share; or a gRPC target such as ipv4:10.0.0.1:8001,10.0.0.2:8001. `replicas` is how
        many are kept busy.

        Raises:
            EngineUnavailable: not ready within `wait_s`, or only with other versions.
            BadRepository: what is served there is not what `files` describes.
        """
        target = address if re.match("(dns|ipv4|ipv6|unix):", address) else f"dns:///{address}"
        channel = grpc.aio.insecure_channel(target, options=_CHANNEL)
        try:
            found = await find(channel, files.spec, address, wait_s)
        except BaseException:
            await channel.close()
            raise
        # There a second batch waits for the cores of the first, and only makes both smaller.
        on_cpu = found.backend == "python"
        return cls(
            files.spec,
            channel,
            max_batch=found.max_batch,
            checked=found.checked,
            metrics=metrics or Metrics(),
            description=f"triton {found.server}, backend {found.backend}",
            in_flight=1 if on_cpu and replicas == 1 else 2 * replicas,
            call_tokens=_CALL_TOKENS_PYTHON if on_cpu else _CALL_TOKENS,
        )

    async def run(
        self,
        tower: Tower,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """As `Engine.run`; a batch larger than Triton takes is sent in parts, all at once.

        Raises:
            EngineUnavailable, EngineFailed: as there.
            DeadlinePassed: `timeout_s` passed; Triton drops what it had not begun.
            Overloaded: Triton's queue is full.
        """
        rows, most = len(next(iter(inputs.values()))), self._max_batch[tower]
        until = time.monotonic() + min(timeout_s or _LONGEST_S, _LONGEST_S)
        cuts = range(0, rows, most)
        parts = [{name: array[cut : cut + most] for name, array in inputs.items()} for cut in cuts]
        with one_reason():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._run(tower, p, outputs, until)) for p in parts]
        answers = [task.result() for task in tasks]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}

    async def is_well(self) -> bool:
        """Triton is there, and no call found a tower away since it last answered one.

        Large batches on a CPU take seconds each, and the canary comes behind them.
        """
        if not all(breaker.is_well for breaker in self._breakers.values()):
            return False
        try:
            answer = await self._triton.ServerLive(pb.ServerLiveRequest(), timeout=_LIVE_S)
            return bool(answer.live)
        except grpc.aio.AioRpcError:
            return False

    async def close(self) -> None:
        await self._channel.close()

    async def _run(
        self, tower: Tower, inputs: Mapping[str, Array], outputs: Sequence[str], until: float
    ) -> dict[str, Array]:
        left_s = until - time.monotonic()
        model, version = self._spec.folders[tower], self._spec.version
        is_checked = tower in self._checked
        asked = [*outputs, ROW_CHECK] if is_checked else outputs
        request = write_request(model, version, inputs, asked, queue_s=left_s)
        with self._breakers[tower].watched() as was_well:
            try:
                call = self._infer(request, timeout=left_s, metadata=headers())
                # While Triton computes: the sums then cost no caller any time.
                data, sums = await asyncio.gather(call, sums_of(inputs if is_checked else {}))
            except grpc.aio.AioRpcError as exc:
                log.warning("%s: Triton: %s: %s", model, exc.code().name, exc.details())
                raise _meaning(exc, tower, was_well) from exc
            found = read_answer(data)
            if missing := [name for name in asked if name not in found]:
                raise EngineFailed(f"{tower} tower: Triton left out {', '.join(missing)}")
            answer = {name: found[name] for name in outputs}
            if is_checked:
                self._check_rows(tower, sums, answer, found[ROW_CHECK])
        check_answer(self._spec, tower, len(next(iter(inputs.values()))), answer)
        return answer

    def _check_rows(
        self, tower: Tower, sums: Array, answer: Mapping[str, Array], check: Array
    ) -> None:
        if not (reason := mixed_up(sums, answer, check)):
            return
        self._mixed_up += 1
        self._metrics.mixed_up.labels(self._spec.name, tower).inc()
        model, number = self._spec.folders[tower], self._mixed_up
        log.error("%s: Triton mixed answers up, %d times so far: %s", model, number, reason)
        raise EngineUnavailable(f"Triton mixed up answers of the {tower} tower")


def _meaning(exc: grpc.aio.AioRpcError, tower: Tower, was_well: bool) -> DiptychError:
    """The error that a failed call means for our callers, in our words.

    `was_well`: Triton answered the call before this one.
    """
    code, words = exc.code(), exc.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or _QUEUE_TIMEOUT in words:
        return DeadlinePassed("the deadline passed before Triton had answered")
    if _QUEUE_FULL in words:
        return Overloaded("Triton's queue is full", "engine_full")
    gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED)
    if code in gone or _DEAD_STUB.search(words):
        words = f"Triton does not run the {tower} tower at present"
        return EngineUnavailable(words, midway=was_well)
    return EngineFailed(f"the {tower} tower failed in Triton")
