from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from diptych import wire
from diptych.errors import BadInput, DiptychError, Overloaded, Violation
from diptych.gateway.status import (
    DETAILS_KEY,
    PUSHBACK_KEY,
    STATUS,
    code_of,
    to_status,
    trailing,
    unexpected,
)


def leaves(kind: type[DiptychError]) -> Iterator[type[DiptychError]]:
    children = kind.__subclasses__()
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


def sample(kind: type[DiptychError]) -> DiptychError:
    return BadInput.at("inputs[1].text", "why") if kind is BadInput else kind("why")


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(leaves(DiptychError))


def test_no_error_is_unknown() -> None:
    assert grpc.StatusCode.UNKNOWN not in {kind.code for kind in STATUS.values()}


@pytest.mark.parametrize("kind", list(STATUS), ids=lambda kind: kind.__name__)
def test_the_client_raises_what_the_server_meant(kind: type[DiptychError]) -> None:
    status = to_status(sample(kind))
    heard = wire.to_error(status)
    assert STATUS[type(heard)].code is STATUS[kind].code is code_of(status)
    assert str(heard) == str(sample(kind))
    assert wire.code_name(heard) == STATUS[kind].code.name


def test_field_violations_arrive_whole() -> None:
    meant = [Violation("inputs[0].image", "is broken"), Violation("top_k", "is silly")]
    heard = wire.to_error(to_status(BadInput(meant)))
    assert isinstance(heard, BadInput)
    assert list(heard.violations) == meant


def test_what_may_be_retried_says_when_to_programs_and_to_grpc() -> None:
    status = to_status(Overloaded("full"))
    metadata = dict(trailing(status))
    assert metadata[PUSHBACK_KEY] == "250"
    assert metadata[DETAILS_KEY] == status.SerializeToString()
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 250


def test_the_unexpected_tells_an_id_and_nothing_else() -> None:
    status = unexpected("abc123")
    assert status.message == "internal error abc123"
    assert PUSHBACK_KEY not in dict(trailing(status))
