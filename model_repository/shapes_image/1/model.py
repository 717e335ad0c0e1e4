"""`model.py` of the target `python`: one tower run inside Triton's Python backend.

Copied as it is into every version folder, beside `model.onnx`; so it imports nothing of ours, and
runs on whatever Triton brings: its stub, NumPy 1 or 2, and OpenVINO or else ONNX Runtime.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils  # only there inside Triton

# Its converters, which are imported with it, would report to its makers who uses them.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino
except ImportError:  # no wheel for this platform
    import onnxruntime as ort

    openvino = None

Array: TypeAlias = npt.NDArray[Any]

_PACKED = "packed_embeds"  # as diptych.engines.base has it
_ROW_CHECK = "row_check"  # as diptych.engines.triton_rows has it


class TritonPythonModel:
    """One instance of one tower. Triton makes it, by this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph beside this file.

        Raises:
            TritonModelException: tensors do not survive this stub, or there is no such graph.
        """
        _check_tensors()
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        precision = given.get("precision", "auto")
        threads = int(given.get("threads", "0")) or len(os.sched_getaffinity(0))
        path = Path(__file__).with_name("model.onnx")
        embeds = [each["name"] for each in config["output"] if each["name"].endswith("_embeds")]
        embeds = [name for name in embeds if name == _PACKED] or embeds  # what is asked for most
        try:
            if openvino is None:
                self._graph: _OpenVino | _OnnxRuntime = _OnnxRuntime(path, threads)
            else:
                self._graph = _OpenVino(path, embeds, threads, precision)
        except Exception as exc:  # whatever the runtime makes of it
            raise pb_utils.TritonModelException(f"{path}: {exc}") from exc
        self._inputs = [tensor["name"] for tensor in config["input"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, in order; those that fit together are computed in one run, those
        that were given up while they waited are not."""
        answers: list[Any] = [None] * len(requests)
        groups = defaultdict(list)
        for place, request in enumerate(requests):
            if request.is_cancelled():
                answers[place] = _given_up()
                continue
            inputs = self._read(request)
            wanted = tuple(request.requested_output_names())
            shapes = tuple(array.shape[1:] for array in inputs.values())
            groups[wanted, shapes].append((place, inputs))
        for (wanted, _), members in groups.items():
            batches = [inputs for _, inputs in members]
            responses = self._respond(batches, wanted)
            for (place, _), response in zip(members, responses, strict=True):
                answers[place] = response
        return answers

    def _read(self, request: Any) -> dict[str, Array]:
        """Copies: Triton may use the memory again for a request that it has given up meanwhile."""
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs}
        return {name: np.array(tensor.as_numpy()) for name, tensor in tensors.items()}

    def _respond(self, batches: list[dict[str, Array]], wanted: tuple[str, ...]) -> list[Any]:
        """One response each. Where the run of all together fails, each is tried alone."""
        computed = [name for name in wanted if name != _ROW_CHECK]
        try:
            answers = zip(batches, self._run(batches, computed), strict=True)
            return [_response(inputs, outputs, wanted) for inputs, outputs in answers]
        except Exception as exc:  # whatever the runtime makes of it
            if len(batches) > 1:
                return [self._respond([batch], wanted)[0] for batch in batches]
            logging.exception("the graph failed")
            return [
                pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the graph failed: {exc}"))
            ]

    def _run(
        self, batches: list[dict[str, Array]], wanted: Sequence[str]
    ) -> list[dict[str, Array]]:
        if len(batches) == 1:
            return [dict(zip(wanted, self._graph.run(batches[0], wanted), strict=True))]
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in self._inputs}
        ends = np.cumsum([len(batch[self._inputs[0]]) for batch in batches])[:-1]
        outputs = self._graph.run(joined, wanted)
        cut = zip(*(np.split(values, ends) for values in outputs), strict=True)
        return [dict(zip(wanted, values, strict=True)) for values in cut]


class _OpenVino:
    """The graph compiled for this CPU, once for every choice of outputs: OpenVINO computes all
    that a graph has. As `diptych.engines.openvino_graph` does it."""

    def __init__(self, path: Path, outputs: Sequence[str], threads: int, precision: str) -> None:
        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        bf16 = precision == "bf16" or (precision == "auto" and native)
        self._path = path
        self._config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._request(tuple(outputs))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        answer = self._request(tuple(outputs)).infer(dict(inputs), share_inputs=True)
        return [answer[place] for place in range(len(outputs))]

    def _request(self, outputs: tuple[str, ...]) -> Any:
        if outputs not in self._compiled:
            core = openvino.Core()
            whole = core.read_model(self._path)
            wanted = [whole.output(name) for name in outputs]
            graph = openvino.Model(wanted, whole.get_parameters())
            compiled = core.compile_model(graph, "CPU", self._config)
            self._compiled[outputs] = compiled.create_infer_request()
        return self._compiled[outputs]


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin between batches would take the cores from the other tower.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), sess_options=options)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        values: list[Array] = self._session.run(list(outputs), dict(inputs))
        return values


def _response(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], wanted: Sequence[str]
) -> Any:
    answer = {name: np.ascontiguousarray(values) for name, values in outputs.items()}
    if _ROW_CHECK in wanted:
        answer[_ROW_CHECK] = _row_check(inputs, answer)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, answer[name]) for name in wanted])


def _given_up() -> Any:
    cancelled = pb_utils.TritonError("the caller gave it up", pb_utils.TritonError.CANCELLED)
    return pb_utils.InferenceResponse(error=cancelled)


def _row_check(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Array:
    """Of every row the CRC-32 of its inputs, and of all outputs together: int64 [B, 2].

    Who asked can tell by it that this is the answer to what it sent, and that it came whole.
    """
    sums, whole = [0] * len(next(iter(inputs.values()))), 0
    for _, values in sorted(inputs.items()):
        sums = [zlib.crc32(row, so_far) for row, so_far in zip(values, sums, strict=True)]
    for _, values in sorted(outputs.items()):
        whole = zlib.crc32(values.data, whole)
    return np.array([(row, whole) for row in sums], np.int64)


def _check_tensors() -> None:
    """Refuse a stub that cannot read this NumPy's arrays.

    Triton 2.51 under NumPy 2 answers OK with zero bytes in every tensor, and logs nothing.
    """
    probe = np.arange(1, 5, dtype=np.float32)
    try:
        seen = pb_utils.Tensor("probe", probe).as_numpy()
    except Exception as exc:  # whatever pybind11 makes of it
        seen = exc
    if not np.array_equal(seen, probe):
        raise pb_utils.TritonModelException(
            f"this Triton's Python stub cannot read arrays of numpy {np.__version__}: use numpy<2"
        )
