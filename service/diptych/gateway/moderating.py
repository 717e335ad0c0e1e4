"""The moderation RPCs: check, call, wrap. Nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.contract import Priority
from diptych.gateway.entrance import Entrance
from diptych.gateway.translate import from_space, from_timings
from diptych.gateway.translate_moderation import from_judged, from_policy, to_subjects
from diptych.metrics import Metrics
from diptych.moderation import Judgement, moderate
from diptych.v1 import moderation_pb2 as pb
from diptych.v1 import moderation_pb2_grpc as rpc

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class ModerationServicer(rpc.ModerationServiceServicer):
    def __init__(self, entrance: Entrance, metrics: Metrics) -> None:
        self._entrance = entrance
        self._metrics = metrics

    async def Moderate(self, request: pb.ModerateRequest, context: Context) -> pb.ModerateResponse:
        self._entrance.check(request)
        model, reading = self._entrance.opened(request.options, context, Priority.INTERACTIVE)
        policy = model.policy(request.policy)
        subjects, inputs = to_subjects(request.inputs)
        with model.in_use(), self._entrance.admit(request, inputs, reading):
            judged = await moderate(model.encoder, policy, subjects, reading)
        for result in judged.results:
            if isinstance(result, Judgement):
                self._metrics.judged(policy.policy.name, result.verdict, result.concepts(policy))
        return pb.ModerateResponse(
            space=from_space(model.spec),
            policy=policy.policy.name,
            policy_version=policy.policy.version,
            results=[from_judged(policy, one, request.reached_only) for one in judged.results],
            timings=from_timings(judged.embedded),
        )

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        policies = [
            from_policy(policy.policy, model.spec.name)
            for model in self._entrance.catalog
            for _, policy in sorted(model.policies.items())
        ]
        return pb.ListPoliciesResponse(policies=policies)
