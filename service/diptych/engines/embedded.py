"""Both towers in this process: on OpenVINO, or on ONNX Runtime where there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from diptych.contract import ModelSpec, Tower
from diptych.engines import onnx_graph, openvino_graph
from diptych.engines.base import EMBEDS, PACKED, Array, Finish, check_answer
from diptych.engines.onnx_graph import OnnxGraph
from diptych.engines.openvino_graph import OpenVinoGraph
from diptych.errors import BadRepository, EngineFailed
from diptych.threads import give_way

log = logging.getLogger(__name__)

Provider: TypeAlias = Literal["auto", "openvino", "cpu"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


class _Graph(Protocol):
    @property
    def precision(self) -> str: ...

    def begin(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Finish: ...


class EmbeddedEngine:
    """Both towers of one model as graphs in this process.

    OpenVINO runs them where it has a wheel (Linux on x86-64, Intel or AMD), in bf16 where the CPU
    multiplies it natively; elsewhere ONNX Runtime's own CPU provider does.
    """

    # A second one would share the cores with the first: on two cores, a ViT-B/32 answered 10 %
    # fewer images and 5 % fewer texts a second with two.
    in_flight = 1
    call_tokens = 16  # measured on ViT-B/32's text tower: a call costs what so many tokens do
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
        openvino = provider != "cpu" and openvino_graph.is_here()
        if provider == "openvino" and not openvino:
            raise BadRepository("provider openvino: there is none for this machine")
        self.length_step = 2 if openvino else 1  # OpenVINO takes 10 ms more for every new shape

        def load(tower: Tower) -> _Graph:
            if not openvino:
                return OnnxGraph(graphs[tower], threads=threads)
            wanted = [PACKED if PACKED in spec.outputs(tower) else EMBEDS[tower]]
            return OpenVinoGraph(graphs[tower], wanted, threads=threads, precision=precision)

        self._threads = ThreadPoolExecutor(
            self.in_flight * len(Tower), thread_name_prefix="engine", initializer=give_way
        )
        # On one of these threads, so that the runtime's own are as nice as they are.
        self._graphs = dict(zip(graphs, self._threads.map(load, graphs), strict=True))
        runtime = (
            f"openvino {openvino_graph.version()}"
            if openvino
            else f"onnxruntime {onnx_graph.version()}"
        )
        used = self._graphs[Tower.IMAGE].precision
        self.description = f"{runtime}, CPU, {used}, {threads} threads"

    async def is_well(self) -> bool:
        return True  # it cannot go away

    async def run(
        self,
        tower: Tower,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,  # a run cannot be stopped half-way
    ) -> dict[str, Array]:
        with self._failing(tower):
            # Begun here: a thread would first have to take turns with the event loop, which is
            # busy just now with the answers of the batch before.
            finish = self._graphs[tower].begin(inputs, outputs)
        rows = len(next(iter(inputs.values())))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._end, tower, finish, outputs, rows)

    def _end(
        self, tower: Tower, finish: Finish, outputs: Sequence[str], rows: int
    ) -> dict[str, Array]:
        with self._failing(tower):
            values = finish()
        answer = dict(zip(outputs, values, strict=True))
        check_answer(self._spec, tower, rows, answer)
        return answer

    @contextmanager
    def _failing(self, tower: Tower) -> Iterator[None]:
        """Within this, whatever the runtime raises is the engine's failure."""
        try:
            yield
        except Exception as exc:
            log.exception("%s: the %s tower failed", self._spec.name, tower)
            raise EngineFailed(f"the {tower} tower failed") from exc

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
