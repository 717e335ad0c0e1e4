"""ONNX Runtime in this process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import onnxruntime as ort

from diptych.contract import ModelSpec, Tower
from diptych.engines.base import Array, check_answer
from diptych.errors import BadRepository, EngineFailed
from diptych.threads import give_way

try:
    import onnxruntime_ep_openvino as openvino
except ImportError:  # no wheel for this platform
    openvino = None

log = logging.getLogger(__name__)

Provider: TypeAlias = Literal["auto", "openvino", "cpu"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

_OPENVINO = "OpenVINOExecutionProvider"


class EmbeddedEngine:
    """Both towers of one model as ONNX Runtime sessions.

    The OpenVINO provider is used where it offers this machine's CPU (its plugin lists Intel's
    only), in bf16 where the CPU multiplies it natively; else ONNX Runtime's own CPU provider.
    """

    # A second one would share the cores with the first: on two cores, a ViT-B/32 answered 10 %
    # fewer images and 5 % fewer texts a second with two.
    in_flight = 1
    call_tokens = 16  # measured on ViT-B/32's text tower: 6 ms a call, 0.4 ms a token
    canary_every_s = 30.0
    canary_timeout_s = None

    def __init__(
        self,
        spec: ModelSpec,
        graphs: Mapping[Tower, Path],
        *,
        threads: int,
        provider: Provider = "auto",
        precision: Precision = "auto",
    ) -> None:
        """Load both graphs. Takes seconds for large ones: call it off the event loop.

        Raises:
            BadRepository: a graph cannot be read, or `provider` is not to be had here.
        """
        self._spec = spec
        device = _openvino_device() if provider != "cpu" else None
        if provider == "openvino" and device is None:
            raise BadRepository("provider openvino: not offered for this machine's CPU")
        bf16 = precision == "bf16" or (precision == "auto" and _has_bf16())
        self.length_step = 8 if device else 1  # OpenVINO compiles for every new shape
        if device is None:
            options = _cpu_options(threads)
            where, used = "CPUExecutionProvider", "fp32"
        else:
            options = _openvino_options(device, threads, bf16=bf16)
            where, used = _OPENVINO, "bf16" if bf16 else "fp32"
        self._threads = ThreadPoolExecutor(
            self.in_flight * len(Tower), thread_name_prefix="engine", initializer=give_way
        )
        # On one of these threads, so that ONNX Runtime's own are as nice as they are.
        load = partial(_session, options=options)
        self._sessions = dict(zip(graphs, self._threads.map(load, graphs.values()), strict=True))
        self.description = f"onnxruntime {ort.__version__}, {where}, {used}, {threads} threads"

    async def is_busy(self) -> bool:
        return True  # it cannot go away

    async def run(
        self,
        tower: Tower,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,  # a run cannot be stopped half-way
    ) -> dict[str, Array]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._run, tower, inputs, outputs)

    def _run(
        self, tower: Tower, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        try:
            values = self._sessions[tower].run(list(outputs), dict(inputs))
        except Exception as exc:  # ONNX Runtime has a class for every status code
            log.exception("%s: the %s tower failed", self._spec.name, tower)
            raise EngineFailed(f"the {tower} tower failed") from exc
        answer = dict(zip(outputs, values, strict=True))
        check_answer(self._spec, tower, len(next(iter(inputs.values()))), answer)
        return answer

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)


def _session(path: Path, *, options: Any) -> Any:
    try:
        return ort.InferenceSession(str(path), sess_options=options)
    except Exception as exc:  # ONNX Runtime has a class for every status code
        raise BadRepository(f"{path}: not a graph ONNX Runtime can load: {exc}") from exc


def _openvino_device() -> Any | None:
    """The CPU as OpenVINO's plugin offers it, or None."""
    if openvino is None:
        return None
    known = {device.ep_name for device in ort.get_ep_devices()}
    if _OPENVINO not in known:
        try:
            ort.register_execution_provider_library(_OPENVINO, openvino.get_library_path())
        except Exception:  # registered already without devices, or the library does not load here
            log.debug("OpenVINO's plugin is not to be had", exc_info=True)
    for device in ort.get_ep_devices():
        if device.ep_name == _OPENVINO and device.ep_metadata.get("ov_device") == "CPU":
            return device
    return None


def _openvino_options(device: Any, threads: int, *, bf16: bool) -> Any:
    options = ort.SessionOptions()
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
    }
    options.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": config})})
    return options


def _cpu_options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # one is kept for every batch size and length, for ever
    # Threads that spin between batches would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively, by Linux's word."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
