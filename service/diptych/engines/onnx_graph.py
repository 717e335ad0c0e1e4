"""One tower run by ONNX Runtime's own CPU provider, where there is no OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from diptych.engines.base import Array, Finish
from diptych.errors import BadRepository


class OnnxGraph:
    """A session in fp32. Any number of threads may call `begin`."""

    precision = "fp32"

    def __init__(self, path: Path, *, threads: int) -> None:
        """Load `path`.

        Raises:
            BadRepository: it cannot be read.
        """
        try:
            self._session = ort.InferenceSession(str(path), sess_options=_options(threads))
        except Exception as exc:  # ONNX Runtime has a class for every status code
            raise BadRepository(f"{path}: not a graph ONNX Runtime can load: {exc}") from exc

    def begin(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Finish:
        """What computes the outputs by name; it raises whatever ONNX Runtime does for what it
        refuses."""
        return partial(self._session.run, list(outputs), dict(inputs))


def version() -> str:
    return str(ort.__version__)


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # one is kept for every batch size and length, for ever
    # Threads that spin between batches would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
