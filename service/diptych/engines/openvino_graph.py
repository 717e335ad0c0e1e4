"""One tower run by OpenVINO's CPU plugin: the only importer of openvino."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from diptych.engines.base import Array, Finish
from diptych.errors import BadRepository

# Its converters, which are imported with it, would report to its makers who uses them; and without
# a home directory what reports does not even load. OpenVINO does without where it is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino
except ImportError:  # no wheel for this platform
    openvino = None

_SHAPES = 1000  # that kernels are kept for; five times as many would take 600 MB


class OpenVinoGraph:
    """A graph compiled for the CPU. Any number of threads may call `begin`."""

    def __init__(
        self,
        path: Path,
        outputs: Sequence[str],
        *,
        threads: int,
        precision: Literal["auto", "fp32", "bf16"],
    ) -> None:
        """Read and compile `path` for `outputs`, the ones that must not wait for it later.

        Raises:
            BadRepository: it cannot be read.
        """
        self._path = path
        bf16 = precision == "bf16" or (precision == "auto" and _has_bf16())
        self.precision = "bf16" if bf16 else "fp32"
        self._config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned, the threads of two processes would share one core and leave the next idle.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _SHAPES,
        }
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[str, ...], _Requests] = {}
        self._requests(tuple(outputs))

    def begin(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Finish:
        """Compute these outputs of `inputs`, which are left alone until then.

        What is returned, and must be called, waits for them. They are being computed meanwhile,
        unless the graph must be compiled for a new choice of outputs first: seconds for a large
        one, which are spent there. Either raises RuntimeError for what OpenVINO refuses.
        """
        wanted = tuple(outputs)
        if (found := self._compiled.get(wanted)) is not None:  # also while another is compiled
            return found.begin(inputs)
        return lambda: self._requests(wanted).begin(inputs)()

    def _requests(self, outputs: tuple[str, ...]) -> _Requests:
        with self._compiling:
            if outputs not in self._compiled:
                self._compiled[outputs] = _Requests(self._compile(outputs), len(outputs))
            return self._compiled[outputs]

    def _compile(self, outputs: tuple[str, ...]) -> Any:
        """OpenVINO computes every output of a graph, asked for or not: so each choice has its
        own, without the rest."""
        core = openvino.Core()
        try:
            whole = core.read_model(self._path)
            wanted = [whole.output(name) for name in outputs]
            return core.compile_model(
                openvino.Model(wanted, whole.get_parameters()), "CPU", self._config
            )
        except RuntimeError as exc:
            raise BadRepository(f"{self._path}: not a graph OpenVINO can load: {exc}") from exc


class _Requests:
    """The idle inference requests of one compiled graph; each holds the memory of one run."""

    def __init__(self, compiled: Any, outputs: int) -> None:
        self._compiled = compiled
        self._outputs = outputs
        self._idle: list[Any] = [compiled.create_infer_request()]

    def begin(self, inputs: Mapping[str, Array]) -> Finish:
        try:
            request = self._idle.pop()
        except IndexError:  # all are at work
            request = self._compiled.create_infer_request()
        shared = dict(inputs)  # OpenVINO reads these very arrays
        try:
            request.start_async(shared, share_inputs=True)
        except RuntimeError:
            self._idle.append(request)
            raise
        return partial(self._finish, request, shared)

    def _finish(self, request: Any, _shared: object) -> list[Array]:
        try:
            request.wait()
            return [request.get_output_tensor(i).data.copy() for i in range(self._outputs)]
        finally:
            self._idle.append(request)


def is_here() -> bool:
    """Whether there is an OpenVINO for this platform, and it runs on this CPU."""
    return openvino is not None and "CPU" in openvino.Core().available_devices


def version() -> str:
    return str(openvino.__version__).partition("-")[0]


def _has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 natively (AMX, AVX512-BF16, …)."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
