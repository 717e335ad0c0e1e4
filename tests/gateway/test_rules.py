"""Each rule, by the field it names. Through a socket they are tested in test_embed.py."""

from __future__ import annotations

from typing import Any

import pytest

from diptych.errors import BadInput
from diptych.gateway.rules import RULES, Limits, check
from diptych.preprocess.images import ImageLimits
from diptych.v1 import conditioning_pb2, moderation_pb2
from diptych.v1 import embedding_pb2 as pb

LIMITS = Limits(
    inputs=3,
    request_bytes=10**6,
    text_characters=100,
    stream_inputs=4,
    templated_texts=4,
    image=ImageLimits(),
)
A = pb.Input(text="a")


def score(**fields: Any) -> pb.ScoreRequest:
    return pb.ScoreRequest(**{"queries": [A], "candidates": [A], **fields})


def moderate(**fields: Any) -> moderation_pb2.ModerateRequest:
    one = moderation_pb2.ModerateInput(text="a")
    return moderation_pb2.ModerateRequest(**{"inputs": [one], "policy": "x", **fields})


def condition(**fields: Any) -> conditioning_pb2.ConditionRequest:
    one = conditioning_pb2.Prompt(text="a")
    return conditioning_pb2.ConditionRequest(**{"prompts": [one], "profile": "sd15", **fields})


GOOD = [
    pb.EmbedRequest(inputs=[A]),
    pb.EmbedRequest(inputs=[A] * 3, data_type=pb.DATA_TYPE_FLOAT16),
    pb.EmbedRequest(inputs=[pb.Input()]),  # concerns one input alone: said in its own result
    pb.EmbedStreamRequest(),
    score(),
    score(templates=["a {}", "{} b"], top_k=5, measure=pb.MEASURE_SIGMOID),
    score(candidates=[], label_set="colours"),
    score(pairing=pb.PAIRING_PAIRWISE, measure=pb.MEASURE_LOGIT),
    pb.ListModelsRequest(),
    moderate(),
    moderate(inputs=[moderation_pb2.ModerateInput()]),  # said in its own result
    moderation_pb2.ListPoliciesRequest(),
    condition(),
    condition(prompts=[]),  # what is needed depends on the profile
    conditioning_pb2.ConditionStreamRequest(request=condition()),
    conditioning_pb2.ListProfilesRequest(),
]
PAIRS = {"pairing": pb.PAIRING_PAIRWISE}
BAD = [
    (pb.EmbedRequest(), {"inputs"}),
    (pb.EmbedRequest(inputs=[A] * 4), {"inputs"}),
    (pb.EmbedRequest(inputs=[A], data_type=pb.DATA_TYPE_UINT8), {"data_type"}),
    (pb.EmbedRequest(inputs=[A], data_type=77), {"data_type"}),  # type: ignore[arg-type]
    (pb.EmbedRequest(inputs=[A], options=pb.Options(priority=9)), {"options.priority"}),  # type: ignore[arg-type]
    (
        pb.EmbedStreamRequest(options=pb.EmbedStreamOptions(options=pb.Options(truncation=9))),  # type: ignore[arg-type]
        {"options.options.truncation"},
    ),
    (
        pb.EmbedStreamRequest(options=pb.EmbedStreamOptions(data_type=pb.DATA_TYPE_UINT8)),
        {"options.data_type"},
    ),
    (pb.EmbedStreamRequest(inputs=[pb.EmbedStreamInput(id="é" * 129)]), {"inputs[0].id"}),
    (score(queries=[]), {"queries"}),
    (score(candidates=[]), {"candidates"}),
    (score(queries=[A] * 4, candidates=[A] * 4), {"queries", "candidates"}),
    (score(label_set="x"), {"candidates"}),
    (score(label_set="x", candidates=[], templates=["{}"]), {"templates"}),
    (score(templates=["no slot", "{} {}", "{}"]), {"templates[0]", "templates[1]"}),
    (score(candidates=[A] * 3, templates=["{}"] * 2), {"templates"}),
    (score(measure=9), {"measure"}),
    (score(pairing=9), {"pairing"}),
    (score(queries=[A, A], **PAIRS), {"candidates"}),
    (score(measure=pb.MEASURE_SOFTMAX, **PAIRS), {"measure"}),
    (score(top_k=1, **PAIRS), {"top_k"}),
    (score(label_set="x", candidates=[], **PAIRS), {"label_set"}),
    (moderate(inputs=[]), {"inputs"}),
    (moderate(inputs=[moderation_pb2.ModerateInput()] * 4), {"inputs"}),
    (moderate(policy=""), {"policy"}),
    (moderate(options=pb.Options(dimensions=8)), {"options.dimensions"}),
    (moderate(options=pb.Options(priority=9)), {"options.priority"}),  # type: ignore[arg-type]
    (condition(prompts=[conditioning_pb2.Prompt()] * 4, images=[A] * 4), {"prompts", "images"}),
    (condition(profile=""), {"profile"}),
    (condition(options=pb.Options(dimensions=8)), {"options.dimensions"}),
    (condition(data_type=pb.DATA_TYPE_BOOL), {"data_type"}),
    (condition(emphasis=7, long_prompt=7), {"emphasis", "long_prompt"}),
    (
        conditioning_pb2.ConditionStreamRequest(request=condition(profile="", emphasis=7)),
        {"request.profile", "request.emphasis"},
    ),
]


@pytest.mark.parametrize("request_", GOOD, ids=repr)
def test_good_requests_pass(request_: Any) -> None:
    check(request_, LIMITS)


def named(value: object) -> str:
    """The same in every process; a set's own order is not."""
    return ", ".join(sorted(value)) if isinstance(value, set) else repr(value)


@pytest.mark.parametrize(("request_", "fields"), BAD, ids=named)
def test_each_broken_rule_names_its_field(request_: Any, fields: set[str]) -> None:
    with pytest.raises(BadInput) as caught:
        check(request_, LIMITS)
    assert {violation.field for violation in caught.value.violations} == fields


def test_every_request_has_its_row() -> None:
    requests = {
        method.input_type.name
        for file in (pb.DESCRIPTOR, moderation_pb2.DESCRIPTOR, conditioning_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert requests == {kind.DESCRIPTOR.name for kind in RULES}
