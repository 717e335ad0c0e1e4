"""The moderation RPCs: check, call, wrap. Nothing is computed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import grpc

from diptych.concepts import EmbeddedPolicy
from diptych.contract import Priority
from diptych.gateway.entrance import Entrance
from diptych.gateway.judgement_bytes import JudgementBytes
from diptych.gateway.translate import from_space, from_timings
from diptych.gateway.translate_moderation import from_policy, to_subjects
from diptych.metrics import Metrics
from diptych.moderation import INLINE_SCORES, Judged, Judgement, moderate
from diptych.v1 import moderation_pb2 as pb

if TYPE_CHECKING:  # generic in the stubs, not at run time
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

NAME = pb.DESCRIPTOR.services_by_name["ModerationService"].full_name


class ModerationServicer:
    def __init__(self, entrance: Entrance, metrics: Metrics) -> None:
        self._entrance = entrance
        self._metrics = metrics
        # Of every policy in use, forgotten with it.
        self._writers: WeakKeyDictionary[EmbeddedPolicy, JudgementBytes] = WeakKeyDictionary()

    def add_to(self, server: grpc.aio.Server) -> None:
        """As the generated code would, but that `Moderate` answers with bytes, not a message."""
        unary: Callable[..., Handler] = grpc.unary_unary_rpc_method_handler
        methods = {
            "Moderate": unary(self.Moderate, pb.ModerateRequest.FromString),
            "ListPolicies": unary(
                self.ListPolicies,
                pb.ListPoliciesRequest.FromString,
                pb.ListPoliciesResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))
        server.add_registered_method_handlers(NAME, methods)

    async def Moderate(self, request: pb.ModerateRequest, context: Context) -> bytes:
        """The bytes of a ModerateResponse."""
        self._entrance.check(request)
        model, reading = self._entrance.opened(request.options, context, Priority.INTERACTIVE)
        policy = model.policy(request.policy)
        subjects, inputs = to_subjects(request.inputs)
        with model.in_use(), self._entrance.admit(request, inputs, reading):
            judged = await moderate(model.encoder, policy, subjects, reading)
            results = await self._written(policy, judged, reached_only=request.reached_only)
        for result in judged.results:
            if isinstance(result, Judgement):
                self._metrics.judged(policy.policy.name, result.verdict, result.concepts(policy))
        head = pb.ModerateResponse(
            space=from_space(model.spec),
            policy=policy.policy.name,
            policy_version=policy.policy.version,
            policy_digest=policy.digest,
            timings=from_timings(judged.embedded),
        )
        return head.SerializeToString() + results  # fields may come in any order

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        policies = [
            from_policy(policy.policy, model.spec.name)
            for model in self._entrance.catalog
            for _, policy in sorted(model.policies.items())
        ]
        return pb.ListPoliciesResponse(policies=policies)

    async def _written(
        self, policy: EmbeddedPolicy, judged: Judged, *, reached_only: bool
    ) -> bytes:
        if (writer := self._writers.get(policy)) is None:
            writer = self._writers[policy] = JudgementBytes(policy)
        write = partial(writer.results, judged.results, reached_only=reached_only)
        is_small = len(judged.results) * len(policy.policy.concepts) <= INLINE_SCORES
        return write() if is_small else await asyncio.to_thread(write)
