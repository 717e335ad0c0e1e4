"""What every call passes on its way in: the model it names, its deadline, room inside."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from diptych.admission import Admission
from diptych.contract import Priority
from diptych.encoder import Reading
from diptych.errors import DeadlinePassed
from diptych.gateway.identity import highest
from diptych.gateway.rules import Limits, check
from diptych.gateway.served import Catalog, Served
from diptych.gateway.telemetry import note
from diptych.gateway.translate import to_reading
from diptych.v1 import embedding_pb2 as pb

if TYPE_CHECKING:  # generic in the stubs, not at run time
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


class Entrance:
    """Shared by all services of one server, so that their bounds are one."""

    def __init__(self, catalog: Catalog, admission: Admission, limits: Limits) -> None:
        self.catalog = catalog
        self.admission = admission
        self.limits = limits

    def check(self, request: Message) -> None:
        """Hold `request` against every rule of its kind.

        Raises:
            BadInput: naming every field that breaks a rule, with its index.
        """
        check(request, self.limits)

    def opened(
        self, options: pb.Options, context: Context, usual: Priority
    ) -> tuple[Served, Reading]:
        """The model a call names, and how its inputs are to be read, if there is time at all.

        Raises:
            DeadlinePassed: there is none.
            NotFound: no such model.
            SpaceMismatch: its space is not the one the caller expects.
        """
        left_s = context.time_remaining()
        deadline = math.inf if left_s is None else asyncio.get_running_loop().time() + left_s
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("the deadline passed on arrival")
        model = self.catalog.get(options.model, options.expected_fingerprint)
        note(model=model.spec.name)
        reading = to_reading(options, model.spec, deadline, usual)
        if (priority := highest(reading.priority)) is not reading.priority:
            reading = replace(reading, priority=priority)
        return model, reading

    def admit(
        self, request: Message, inputs: int, reading: Reading
    ) -> AbstractContextManager[None]:
        """Room for `inputs` for the length of a `with`.

        Raises:
            Overloaded: at once, when there is none.
        """
        note(inputs=inputs)
        return self.admission.enter(inputs, request.ByteSize(), reading.priority)
