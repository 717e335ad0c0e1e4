"""The conditioning RPCs: check, call, wrap. Nothing is computed here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from diptych.conditioning import condition
from diptych.contract import Priority
from diptych.errors import BadInput
from diptych.gateway.entrance import Entrance
from diptych.gateway.served import Served
from diptych.gateway.translate_conditioning import (
    from_conditioned,
    from_profile,
    in_parts,
    to_wish,
)
from diptych.profile_files import Profiles, read_profiles
from diptych.profiles import Profile
from diptych.settings import Settings
from diptych.v1 import conditioning_pb2 as pb
from diptych.v1 import conditioning_pb2_grpc as rpc
from diptych.wishes import Bounds, Wish, used

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class ConditioningServicer(rpc.ConditioningServiceServicer):
    def __init__(self, entrance: Entrance, profiles: Profiles, bounds: Bounds) -> None:
        self._entrance = entrance
        self._profiles = profiles
        self._bounds = bounds

    @classmethod
    def of(cls, settings: Settings, entrance: Entrance) -> ConditioningServicer:
        """With the shipped profiles and those of the settings' folder.

        Raises:
            BadRepository: a profile is bad, or names a model that is not served.
        """
        profiles = read_profiles(settings.profiles)
        profiles.check([model.spec.name for model in entrance.catalog])
        bounds = Bounds(settings.max_prompt_chunks, settings.max_condition_bytes)
        return cls(entrance, profiles, bounds)

    async def Condition(
        self, request: pb.ConditionRequest, context: Context
    ) -> pb.ConditionResponse:
        self._entrance.check(request)
        return await self._answer(request, context)

    # A coroutine that writes, not a generator: see EmbeddingServicer.EmbedStream.
    async def ConditionStream(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.ConditionStreamRequest], context: Context
    ) -> None:
        async for request in request_iterator:
            self._entrance.check(request)
            for part in in_parts(await self._answer(request.request, context)):
                await context.write(part)

    async def ListProfiles(
        self, request: pb.ListProfilesRequest, context: Context
    ) -> pb.ListProfilesResponse:
        return pb.ListProfilesResponse(profiles=[from_profile(one) for one in self._profiles])

    async def _answer(self, request: pb.ConditionRequest, context: Context) -> pb.ConditionResponse:
        default, reading = self._entrance.opened(request.options, context, Priority.INTERACTIVE)
        profile, wish = self._profiles.get(request.profile), to_wish(request)
        models = self._models(profile, wish, request, default)
        inputs = len(models) * (2 * len(wish.prompts) + len(wish.images))
        with ExitStack() as stack:
            for model in models.values():
                stack.enter_context(model.in_use())
            stack.enter_context(self._entrance.admit(request, inputs, reading))
            conditioners = {number: model.conditioner for number, model in models.items()}
            found = await condition(profile, conditioners, wish, reading, self._bounds)
        spaces = [model.spec for model in models.values()]
        return from_conditioned(profile.name, spaces, found, request.data_type)

    def _models(
        self, profile: Profile, wish: Wish, request: pb.ConditionRequest, default: Served
    ) -> dict[int, Served]:
        """By encoder in use: the request's, else the profile's, else the default model.

        Raises:
            BadInput: as many as the profile has are not given, or nobody names one of two.
            NotFound: one of them is not served.
            SpaceMismatch: one's space is not the one the caller expects.
        """
        given, count = request.encoders, len(profile.encoders)
        if len(given) not in (0, count):
            problem = f"has {len(given)} entries; profile {profile.name!r} has {count} encoders"
            raise BadInput.at("encoders", problem)
        found: dict[int, Served] = {}
        for number in used(profile, wish):
            encoder = profile.encoders[number]
            named = given[number].model if given else ""
            expected = given[number].expected_fingerprint if given else ""
            name = named or encoder.model or ""
            if name or expected:
                found[number] = self._entrance.catalog.get(name, expected)
            elif len(profile.of(encoder.tower)) > 1:
                problem = f"profile {profile.name!r} has two {encoder.tower} encoders: name a model"
                raise BadInput.at(f"encoders[{number}].model", f"{problem} for each")
            else:
                found[number] = default
        return found
