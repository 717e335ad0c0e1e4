"""The conditioning calls of both clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from diptych.client_channel import typed_errors
from diptych.v1 import conditioning_pb2 as pb
from diptych.v1 import conditioning_pb2_grpc as rpc
from diptych.wire import DEFAULTS, Input, Options
from diptych.wire_conditioning import (
    USUAL,
    Conditioning,
    ConditionReply,
    Parts,
    Prompt,
    condition_reply,
    condition_request,
)


class ConditioningCalls:
    """Part of `Client`."""

    _conditioning: rpc.ConditioningServiceStub
    _timeout_s: float

    def condition(
        self,
        profile: str,
        prompts: Sequence[str | Prompt] | str = (),
        negatives: Sequence[str] | str | None = None,
        *,
        images: Sequence[Input] = (),
        how: Conditioning = USUAL,
        options: Options = DEFAULTS,
        in_parts: bool = False,
    ) -> ConditionReply:
        """The tensors an image generator takes, under one of the server's profiles.

        pipe(**client.condition("sd15", "a cat", "blurry").arguments(torch=True))

        `negatives`: one for all prompts, or one for each. `in_parts`: in messages of 1 MiB, for
        what is too large for one.
        """
        request = condition_request(profile, prompts, negatives, images, how, options)
        with typed_errors():
            if not in_parts:
                reply = self._conditioning.Condition(request, timeout=self._timeout_s)
                return condition_reply(reply)
            parts = Parts()
            requests = iter([pb.ConditionStreamRequest(request=request)])
            for part in self._conditioning.ConditionStream(requests, timeout=self._timeout_s):
                parts.add(part)
            return parts.reply()

    def profiles(self) -> tuple[pb.Profile, ...]:
        """The profiles served: the messages as they came."""
        with typed_errors():
            request = pb.ListProfilesRequest()
            reply = self._conditioning.ListProfiles(request, timeout=self._timeout_s)
            return tuple(reply.profiles)


class AsyncConditioningCalls:
    """Part of `AsyncClient`."""

    _conditioning: rpc.ConditioningServiceAsyncStub
    _timeout_s: float

    async def condition(
        self,
        profile: str,
        prompts: Sequence[str | Prompt] | str = (),
        negatives: Sequence[str] | str | None = None,
        *,
        images: Sequence[Input] = (),
        how: Conditioning = USUAL,
        options: Options = DEFAULTS,
        in_parts: bool = False,
    ) -> ConditionReply:
        """As `Client.condition`."""
        request = condition_request(profile, prompts, negatives, images, how, options)
        with typed_errors():
            if not in_parts:
                reply = await self._conditioning.Condition(request, timeout=self._timeout_s)
                return condition_reply(reply)
            parts = Parts()
            call = self._conditioning.ConditionStream(_one(request), timeout=self._timeout_s)
            async for part in call:
                parts.add(part)
            return parts.reply()

    async def profiles(self) -> tuple[pb.Profile, ...]:
        """As `Client.profiles`."""
        with typed_errors():
            request = pb.ListProfilesRequest()
            reply = await self._conditioning.ListProfiles(request, timeout=self._timeout_s)
        return tuple(reply.profiles)


async def _one(request: pb.ConditionRequest) -> AsyncIterator[pb.ConditionStreamRequest]:
    yield pb.ConditionStreamRequest(request=request)
