from diptych.v1 import embedding_pb2 as _embedding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Emphasis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMPHASIS_UNSPECIFIED: _ClassVar[Emphasis]
    EMPHASIS_WEIGHTED: _ClassVar[Emphasis]
    EMPHASIS_LITERAL: _ClassVar[Emphasis]

class LongPrompt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONG_PROMPT_UNSPECIFIED: _ClassVar[LongPrompt]
    LONG_PROMPT_CHUNKS: _ClassVar[LongPrompt]
    LONG_PROMPT_CUT: _ClassVar[LongPrompt]
    LONG_PROMPT_REFUSE: _ClassVar[LongPrompt]

class MissingNegative(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MISSING_NEGATIVE_UNSPECIFIED: _ClassVar[MissingNegative]
    MISSING_NEGATIVE_EMPTY: _ClassVar[MissingNegative]
    MISSING_NEGATIVE_ZEROS: _ClassVar[MissingNegative]
    MISSING_NEGATIVE_NONE: _ClassVar[MissingNegative]
EMPHASIS_UNSPECIFIED: Emphasis
EMPHASIS_WEIGHTED: Emphasis
EMPHASIS_LITERAL: Emphasis
LONG_PROMPT_UNSPECIFIED: LongPrompt
LONG_PROMPT_CHUNKS: LongPrompt
LONG_PROMPT_CUT: LongPrompt
LONG_PROMPT_REFUSE: LongPrompt
MISSING_NEGATIVE_UNSPECIFIED: MissingNegative
MISSING_NEGATIVE_EMPTY: MissingNegative
MISSING_NEGATIVE_ZEROS: MissingNegative
MISSING_NEGATIVE_NONE: MissingNegative

class ConditionRequest(_message.Message):
    __slots__ = ("options", "profile", "encoders", "prompts", "images", "clip_skip", "emphasis", "long_prompt", "unguided", "data_type")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CLIP_SKIP_FIELD_NUMBER: _ClassVar[int]
    EMPHASIS_FIELD_NUMBER: _ClassVar[int]
    LONG_PROMPT_FIELD_NUMBER: _ClassVar[int]
    UNGUIDED_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    options: _embedding_pb2.Options
    profile: str
    encoders: _containers.RepeatedCompositeFieldContainer[EncoderModel]
    prompts: _containers.RepeatedCompositeFieldContainer[Prompt]
    images: _containers.RepeatedCompositeFieldContainer[_embedding_pb2.Input]
    clip_skip: int
    emphasis: Emphasis
    long_prompt: LongPrompt
    unguided: bool
    data_type: _embedding_pb2.DataType
    def __init__(self, options: _Optional[_Union[_embedding_pb2.Options, _Mapping]] = ..., profile: _Optional[str] = ..., encoders: _Optional[_Iterable[_Union[EncoderModel, _Mapping]]] = ..., prompts: _Optional[_Iterable[_Union[Prompt, _Mapping]]] = ..., images: _Optional[_Iterable[_Union[_embedding_pb2.Input, _Mapping]]] = ..., clip_skip: _Optional[int] = ..., emphasis: _Optional[_Union[Emphasis, str]] = ..., long_prompt: _Optional[_Union[LongPrompt, str]] = ..., unguided: _Optional[bool] = ..., data_type: _Optional[_Union[_embedding_pb2.DataType, str]] = ...) -> None: ...

class EncoderModel(_message.Message):
    __slots__ = ("model", "expected_fingerprint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_fingerprint: str
    def __init__(self, model: _Optional[str] = ..., expected_fingerprint: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("text", "text_2", "negative", "negative_2")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_2_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_2_FIELD_NUMBER: _ClassVar[int]
    text: str
    text_2: str
    negative: str
    negative_2: str
    def __init__(self, text: _Optional[str] = ..., text_2: _Optional[str] = ..., negative: _Optional[str] = ..., negative_2: _Optional[str] = ...) -> None: ...

class ConditionResponse(_message.Message):
    __slots__ = ("profile", "spaces", "tensors", "readings", "chunks", "timings")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    profile: str
    spaces: _containers.RepeatedCompositeFieldContainer[_embedding_pb2.Space]
    tensors: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    readings: _containers.RepeatedCompositeFieldContainer[PromptReading]
    chunks: int
    timings: _embedding_pb2.Timings
    def __init__(self, profile: _Optional[str] = ..., spaces: _Optional[_Iterable[_Union[_embedding_pb2.Space, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ..., readings: _Optional[_Iterable[_Union[PromptReading, _Mapping]]] = ..., chunks: _Optional[int] = ..., timings: _Optional[_Union[_embedding_pb2.Timings, _Mapping]] = ...) -> None: ...

class NamedTensor(_message.Message):
    __slots__ = ("name", "tensor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    tensor: _embedding_pb2.Tensor
    def __init__(self, name: _Optional[str] = ..., tensor: _Optional[_Union[_embedding_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PromptReading(_message.Message):
    __slots__ = ("prompt", "negative")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    prompt: _containers.RepeatedCompositeFieldContainer[TextReading]
    negative: _containers.RepeatedCompositeFieldContainer[TextReading]
    def __init__(self, prompt: _Optional[_Iterable[_Union[TextReading, _Mapping]]] = ..., negative: _Optional[_Iterable[_Union[TextReading, _Mapping]]] = ...) -> None: ...

class TextReading(_message.Message):
    __slots__ = ("tokens", "chunks", "tokens_dropped", "dropped")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    chunks: int
    tokens_dropped: int
    dropped: str
    def __init__(self, tokens: _Optional[int] = ..., chunks: _Optional[int] = ..., tokens_dropped: _Optional[int] = ..., dropped: _Optional[str] = ...) -> None: ...

class ConditionStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: ConditionRequest
    def __init__(self, request: _Optional[_Union[ConditionRequest, _Mapping]] = ...) -> None: ...

class ConditionStreamResponse(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: ConditionResponse
    data: bytes
    def __init__(self, header: _Optional[_Union[ConditionResponse, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ListProfilesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListProfilesResponse(_message.Message):
    __slots__ = ("profiles",)
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    profiles: _containers.RepeatedCompositeFieldContainer[Profile]
    def __init__(self, profiles: _Optional[_Iterable[_Union[Profile, _Mapping]]] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("name", "description", "encoders", "tensors", "missing_negative", "chunks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    MISSING_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    encoders: _containers.RepeatedCompositeFieldContainer[ProfileEncoder]
    tensors: _containers.RepeatedCompositeFieldContainer[ProfileTensor]
    missing_negative: MissingNegative
    chunks: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., encoders: _Optional[_Iterable[_Union[ProfileEncoder, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[ProfileTensor, _Mapping]]] = ..., missing_negative: _Optional[_Union[MissingNegative, str]] = ..., chunks: _Optional[bool] = ...) -> None: ...

class ProfileEncoder(_message.Message):
    __slots__ = ("model", "is_text")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IS_TEXT_FIELD_NUMBER: _ClassVar[int]
    model: str
    is_text: bool
    def __init__(self, model: _Optional[str] = ..., is_text: _Optional[bool] = ...) -> None: ...

class ProfileTensor(_message.Message):
    __slots__ = ("name", "negative_name", "encoders")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_NAME_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    negative_name: str
    encoders: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., negative_name: _Optional[str] = ..., encoders: _Optional[_Iterable[int]] = ...) -> None: ...
