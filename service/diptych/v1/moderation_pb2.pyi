from diptych.v1 import embedding_pb2 as _embedding_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_PASS: _ClassVar[Verdict]
    VERDICT_FLAG: _ClassVar[Verdict]
    VERDICT_REVIEW: _ClassVar[Verdict]
    VERDICT_BLOCK: _ClassVar[Verdict]

class Part(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PART_UNSPECIFIED: _ClassVar[Part]
    PART_IMAGE: _ClassVar[Part]
    PART_TEXT: _ClassVar[Part]
VERDICT_UNSPECIFIED: Verdict
VERDICT_PASS: Verdict
VERDICT_FLAG: Verdict
VERDICT_REVIEW: Verdict
VERDICT_BLOCK: Verdict
PART_UNSPECIFIED: Part
PART_IMAGE: Part
PART_TEXT: Part

class ModerateRequest(_message.Message):
    __slots__ = ("options", "policy", "inputs", "reached_only")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    REACHED_ONLY_FIELD_NUMBER: _ClassVar[int]
    options: _embedding_pb2.Options
    policy: str
    inputs: _containers.RepeatedCompositeFieldContainer[ModerateInput]
    reached_only: bool
    def __init__(self, options: _Optional[_Union[_embedding_pb2.Options, _Mapping]] = ..., policy: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ModerateInput, _Mapping]]] = ..., reached_only: _Optional[bool] = ...) -> None: ...

class ModerateInput(_message.Message):
    __slots__ = ("image", "pixels", "text")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    pixels: _embedding_pb2.Tensor
    text: str
    def __init__(self, image: _Optional[bytes] = ..., pixels: _Optional[_Union[_embedding_pb2.Tensor, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class ModerateResponse(_message.Message):
    __slots__ = ("space", "policy", "policy_version", "results", "timings", "policy_digest")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    space: _embedding_pb2.Space
    policy: str
    policy_version: str
    results: _containers.RepeatedCompositeFieldContainer[ModerateResult]
    timings: _embedding_pb2.Timings
    policy_digest: str
    def __init__(self, space: _Optional[_Union[_embedding_pb2.Space, _Mapping]] = ..., policy: _Optional[str] = ..., policy_version: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ModerateResult, _Mapping]]] = ..., timings: _Optional[_Union[_embedding_pb2.Timings, _Mapping]] = ..., policy_digest: _Optional[str] = ...) -> None: ...

class ModerateResult(_message.Message):
    __slots__ = ("judgement", "error")
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    judgement: Judgement
    error: _status_pb2.Status
    def __init__(self, judgement: _Optional[_Union[Judgement, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("verdict", "severity", "concepts")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    severity: int
    concepts: _containers.RepeatedCompositeFieldContainer[ConceptScore]
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., severity: _Optional[int] = ..., concepts: _Optional[_Iterable[_Union[ConceptScore, _Mapping]]] = ...) -> None: ...

class ConceptScore(_message.Message):
    __slots__ = ("concept", "part", "score", "threshold", "margin", "reached", "action", "severity", "prompt")
    CONCEPT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    concept: str
    part: Part
    score: float
    threshold: float
    margin: float
    reached: bool
    action: Verdict
    severity: int
    prompt: str
    def __init__(self, concept: _Optional[str] = ..., part: _Optional[_Union[Part, str]] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., margin: _Optional[float] = ..., reached: _Optional[bool] = ..., action: _Optional[_Union[Verdict, str]] = ..., severity: _Optional[int] = ..., prompt: _Optional[str] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("name", "version", "description", "model", "fingerprint", "concepts", "examples", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    description: str
    model: str
    fingerprint: str
    concepts: _containers.RepeatedCompositeFieldContainer[PolicyConcept]
    examples: int
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., description: _Optional[str] = ..., model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., concepts: _Optional[_Iterable[_Union[PolicyConcept, _Mapping]]] = ..., examples: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class PolicyConcept(_message.Message):
    __slots__ = ("name", "prompts", "contrast", "templates", "measure", "threshold", "text_threshold", "action", "severity")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TEXT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    prompts: _containers.RepeatedScalarFieldContainer[str]
    contrast: _containers.RepeatedScalarFieldContainer[str]
    templates: _containers.RepeatedScalarFieldContainer[str]
    measure: _embedding_pb2.Measure
    threshold: float
    text_threshold: float
    action: Verdict
    severity: int
    def __init__(self, name: _Optional[str] = ..., prompts: _Optional[_Iterable[str]] = ..., contrast: _Optional[_Iterable[str]] = ..., templates: _Optional[_Iterable[str]] = ..., measure: _Optional[_Union[_embedding_pb2.Measure, str]] = ..., threshold: _Optional[float] = ..., text_threshold: _Optional[float] = ..., action: _Optional[_Union[Verdict, str]] = ..., severity: _Optional[int] = ...) -> None: ...
