"""Triton's side of the protocol, as wrong as a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeAlias

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc
from tritonclient.utils import np_to_triton_dtype

from diptych.contract import Tower
from diptych.engines.base import EMBEDS, Array
from diptych.engines.triton_checks import expected
from diptych.repository import ModelFiles
from diptych_export.triton_config import Placement, Target, config

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Answer: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


def answer(**outputs: Array) -> Any:
    """A ModelInferResponse with these outputs."""
    response = pb.ModelInferResponse()
    for name, values in outputs.items():
        kind = np_to_triton_dtype(values.dtype)
        response.outputs.add(name=name, datatype=kind, shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
    return response


class FarEnd(rpc.GRPCInferenceServiceServicer):  # type: ignore[misc] # an untyped base
    """Describes `files` rightly and answers ones, until told otherwise.

    Only those of the target `python` prove what their answers belong to.
    """

    def __init__(self, files: ModelFiles, target: Target = Target.ONNXRUNTIME) -> None:
        spec = files.spec
        self.spec = spec
        self.address = ""
        self.ready = True
        self.loading = False
        self.versions = [str(spec.version)]
        self.configs = {
            spec.folders[tower]: config(spec, tower, files.graphs[tower], Placement(target), {})
            for tower in Tower
        }
        self.tensors = {spec.folders[tower]: expected(spec, tower) for tower in Tower}
        self.requests: list[Any] = []
        self.answer: Answer = self.ones

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Self]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        rpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        self.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def ones(self, request: Any, context: Context) -> Any:
        """What is asked for, a row for each input."""
        rows = request.inputs[0].shape[0]
        widths = {EMBEDS[tower]: self.spec.embed_dim for tower in Tower}
        return answer(
            **{o.name: np.ones((rows, widths[o.name]), np.float32) for o in request.outputs}
        )

    async def hang(self, request: Any, context: Context) -> Any:
        await asyncio.Event().wait()

    def says(self, code: grpc.StatusCode, words: str, times: int = -1) -> Answer:
        """This error, `times` in a row or always."""
        left = [times]

        async def say(request: Any, context: Context) -> Any:
            left[0] -= 1
            if left[0] == -1:
                self.answer = self.ones
                return await self.ones(request, context)
            await context.abort(code, words)

        return say

    async def ServerLive(self, request: Any, context: Context) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:
        return pb.ServerReadyResponse(ready=self.ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        return pb.ServerMetadataResponse(name="far end", version="0")

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        if request.name not in self.configs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
        if self.loading:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "has no available versions")
        inputs, outputs = self.tensors[request.name]
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=self.versions,
            inputs=[{"name": n, "datatype": t, "shape": s} for n, (t, s) in inputs.items()],
            outputs=[{"name": n, "datatype": t, "shape": s} for n, (t, s) in outputs.items()],
        )

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        return pb.ModelConfigResponse(config=self.configs[request.name])

    async def ModelInfer(self, request: Any, context: Context) -> Any:
        self.requests.append(request)
        return await self.answer(request, context)
