"""The moderation calls of both clients."""

from __future__ import annotations

from collections.abc import Sequence

from diptych.client_channel import typed_errors
from diptych.v1 import moderation_pb2 as pb
from diptych.v1 import moderation_pb2_grpc as rpc
from diptych.wire import DEFAULTS, Options
from diptych.wire_moderation import ModerateReply, Subject, moderate_reply, moderate_request


class ModerationCalls:
    """Part of `Client`."""

    _moderation: rpc.ModerationServiceStub
    _timeout_s: float

    def moderate(
        self,
        subjects: Sequence[Subject],
        policy: str,
        options: Options = DEFAULTS,
        *,
        reached_only: bool = False,
    ) -> ModerateReply:
        """Judge images, texts and (image, caption) pairs by a policy the server has.

        `reached_only`: leave out concepts whose threshold is not reached.
        """
        request = moderate_request(subjects, policy, options, reached_only=reached_only)
        with typed_errors():
            return moderate_reply(self._moderation.Moderate(request, timeout=self._timeout_s))

    def policies(self) -> tuple[pb.Policy, ...]:
        """The policies served, whole: the messages as they came."""
        with typed_errors():
            request = pb.ListPoliciesRequest()
            return tuple(self._moderation.ListPolicies(request, timeout=self._timeout_s).policies)


class AsyncModerationCalls:
    """Part of `AsyncClient`."""

    _moderation: rpc.ModerationServiceAsyncStub
    _timeout_s: float

    async def moderate(
        self,
        subjects: Sequence[Subject],
        policy: str,
        options: Options = DEFAULTS,
        *,
        reached_only: bool = False,
    ) -> ModerateReply:
        """As `Client.moderate`."""
        request = moderate_request(subjects, policy, options, reached_only=reached_only)
        with typed_errors():
            reply = await self._moderation.Moderate(request, timeout=self._timeout_s)
        return moderate_reply(reply)

    async def policies(self) -> tuple[pb.Policy, ...]:
        """As `Client.policies`."""
        with typed_errors():
            request = pb.ListPoliciesRequest()
            reply = await self._moderation.ListPolicies(request, timeout=self._timeout_s)
        return tuple(reply.policies)
