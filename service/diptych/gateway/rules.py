"""What a request must obey, field by field: one table for each message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from diptych.errors import BadInput, Violation
from diptych.labels import SLOT
from diptych.preprocess.images import ImageLimits
from diptych.v1 import conditioning_pb2, moderation_pb2
from diptych.v1 import embedding_pb2 as pb

MAX_ID_BYTES = 256  # of one input of a stream


@dataclass(frozen=True, slots=True)
class Limits:
    """What this server accepts; stated by ListModels."""

    inputs: int
    request_bytes: int
    text_characters: int
    stream_inputs: int
    templated_texts: int
    image: ImageLimits


# A rule looks at a whole request and yields what is wrong with one field of it.
Rule: TypeAlias = Callable[[Any, Limits], Iterator[Violation]]


def check(request: Message, limits: Limits) -> None:
    """Hold `request` against every rule of its kind.

    What concerns one input alone is not looked at here: it must not fail its neighbours.

    Raises:
        BadInput: naming every field that breaks a rule, with its index.
    """
    rules = (known_enums, *RULES.get(type(request), ()))
    if problems := [problem for rule in rules for problem in rule(request, limits)]:
        raise BadInput(problems)


def known_enums(request: Message, limits: Limits) -> Iterator[Violation]:
    """Protobuf lets any number through as an enum; ours mean nothing but what they list."""
    for field, value in request.ListFields():
        if field.enum_type is not None:
            names = [v.name for v in field.enum_type.values]
            if value not in field.enum_type.values_by_number:
                yield Violation(field.name, f"{value} is not one of {', '.join(names)}")
        elif field.name in _GROUPS:
            for problem in known_enums(value, limits):
                yield Violation(f"{field.name}.{problem.field}", problem.problem)


# Fields of a request that hold options, not inputs.
_GROUPS = {"options", "request"}


def count(field: str) -> Rule:
    """The list has at least one entry, and no more than a request may have."""

    def rule(request: Any, limits: Limits) -> Iterator[Violation]:
        if not 1 <= (found := len(getattr(request, field))) <= limits.inputs:
            yield Violation(field, f"has {found} entries; 1 to {limits.inputs} are allowed")

    return rule


def float_type(path: str) -> Rule:
    """Vectors are sent as float32 or float16."""

    def rule(request: Any, limits: Limits) -> Iterator[Violation]:
        *groups, field = path.split(".")
        for group in groups:
            request = getattr(request, group)
        if getattr(request, field) in (pb.DATA_TYPE_UINT8, pb.DATA_TYPE_BOOL):
            yield Violation(path, "DATA_TYPE_FLOAT32 and DATA_TYPE_FLOAT16 are allowed")

    return rule


def candidates_or_label_set(request: pb.ScoreRequest, limits: Limits) -> Iterator[Violation]:
    if not request.label_set:
        yield from count("candidates")(request, limits)
        return
    for field, given in (("candidates", request.candidates), ("templates", request.templates)):
        if given:
            yield Violation(field, "must be empty where label_set is given")


def templates(request: pb.ScoreRequest, limits: Limits) -> Iterator[Violation]:
    for index, template in enumerate(request.templates):
        if template.count(SLOT) != 1:
            yield Violation(f"templates[{index}]", f"must hold {SLOT} once")
    texts = sum(candidate.WhichOneof("kind") == "text" for candidate in request.candidates)
    if (found := texts * len(request.templates)) > limits.templated_texts:
        yield Violation(
            "templates",
            f"{found} texts from {texts} candidates in {len(request.templates)} templates; "
            f"at most {limits.templated_texts} are allowed: use a label set",
        )


def pairwise(request: pb.ScoreRequest, limits: Limits) -> Iterator[Violation]:
    if request.pairing != pb.PAIRING_PAIRWISE:
        return
    if request.label_set:
        yield Violation("label_set", "not pair by pair: a label set is scored against all queries")
    elif len(request.queries) != len(request.candidates):
        found = f"{len(request.candidates)} for {len(request.queries)} queries"
        yield Violation("candidates", f"has {found}; pair by pair needs as many of each")
    if request.measure == pb.MEASURE_SOFTMAX:
        yield Violation("measure", "MEASURE_SOFTMAX needs all candidates of a query")
    if request.top_k:
        yield Violation("top_k", "not pair by pair: each query has one score")


def ids(request: pb.EmbedStreamRequest, limits: Limits) -> Iterator[Violation]:
    for index, given in enumerate(request.inputs):
        if (size := len(given.id.encode())) > MAX_ID_BYTES:
            problem = f"is {size} bytes long; at most {MAX_ID_BYTES} are allowed"
            yield Violation(f"inputs[{index}].id", problem)


def policy_named(request: moderation_pb2.ModerateRequest, limits: Limits) -> Iterator[Violation]:
    if not request.policy:
        yield Violation("policy", "is required: a name from ListPolicies")


def whole_vectors(request: moderation_pb2.ModerateRequest, limits: Limits) -> Iterator[Violation]:
    if request.options.dimensions:
        yield Violation("options.dimensions", "must be 0: thresholds are those of whole vectors")


def prompts_and_images(
    request: conditioning_pb2.ConditionRequest, limits: Limits
) -> Iterator[Violation]:
    for field, given in (("prompts", request.prompts), ("images", request.images)):
        if len(given) > limits.inputs:
            yield Violation(field, f"has {len(given)} entries; at most {limits.inputs} are allowed")


def profile_named(
    request: conditioning_pb2.ConditionRequest, limits: Limits
) -> Iterator[Violation]:
    if not request.profile:
        yield Violation("profile", "is required: a name from ListProfiles")
    if request.options.dimensions:
        yield Violation("options.dimensions", "must be 0: generators take whole tensors")


def inside(field: str, rules: Iterable[Rule]) -> Rule:
    """Each of `rules`, of the message in a field."""

    def rule(request: Any, limits: Limits) -> Iterator[Violation]:
        for one in rules:
            for problem in one(getattr(request, field), limits):
                yield Violation(f"{field}.{problem.field}", problem.problem)

    return rule


_CONDITION: tuple[Rule, ...] = (prompts_and_images, profile_named, float_type("data_type"))

RULES: dict[type[Message], Iterable[Rule]] = {
    pb.EmbedRequest: (count("inputs"), float_type("data_type")),
    pb.EmbedStreamRequest: (ids, float_type("options.data_type")),
    pb.ScoreRequest: (count("queries"), candidates_or_label_set, templates, pairwise),
    pb.ListModelsRequest: (),
    moderation_pb2.ModerateRequest: (count("inputs"), policy_named, whole_vectors),
    moderation_pb2.ListPoliciesRequest: (),
    conditioning_pb2.ConditionRequest: _CONDITION,
    conditioning_pb2.ConditionStreamRequest: (inside("request", _CONDITION),),
    conditioning_pb2.ListProfilesRequest: (),
}
