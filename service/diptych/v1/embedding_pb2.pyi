from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_BOOL: _ClassVar[DataType]

class Truncation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_UNSPECIFIED: _ClassVar[Truncation]
    TRUNCATION_REFUSE: _ClassVar[Truncation]
    TRUNCATION_CUT: _ClassVar[Truncation]

class Orientation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIENTATION_UNSPECIFIED: _ClassVar[Orientation]
    ORIENTATION_EXIF: _ClassVar[Orientation]
    ORIENTATION_IGNORE: _ClassVar[Orientation]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BULK: _ClassVar[Priority]

class Measure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEASURE_UNSPECIFIED: _ClassVar[Measure]
    MEASURE_COSINE: _ClassVar[Measure]
    MEASURE_LOGIT: _ClassVar[Measure]
    MEASURE_SOFTMAX: _ClassVar[Measure]
    MEASURE_SIGMOID: _ClassVar[Measure]
    MEASURE_CLIPSCORE: _ClassVar[Measure]

class Pairing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAIRING_UNSPECIFIED: _ClassVar[Pairing]
    PAIRING_ALL: _ClassVar[Pairing]
    PAIRING_PAIRWISE: _ClassVar[Pairing]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_BOOL: DataType
TRUNCATION_UNSPECIFIED: Truncation
TRUNCATION_REFUSE: Truncation
TRUNCATION_CUT: Truncation
ORIENTATION_UNSPECIFIED: Orientation
ORIENTATION_EXIF: Orientation
ORIENTATION_IGNORE: Orientation
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BULK: Priority
MEASURE_UNSPECIFIED: Measure
MEASURE_COSINE: Measure
MEASURE_LOGIT: Measure
MEASURE_SOFTMAX: Measure
MEASURE_SIGMOID: Measure
MEASURE_CLIPSCORE: Measure
PAIRING_UNSPECIFIED: Pairing
PAIRING_ALL: Pairing
PAIRING_PAIRWISE: Pairing

class Input(_message.Message):
    __slots__ = ("image", "text", "pixels")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    text: str
    pixels: Tensor
    def __init__(self, image: _Optional[bytes] = ..., text: _Optional[str] = ..., pixels: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("data_type", "shape", "data")
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("model", "expected_fingerprint", "dimensions", "truncation", "orientation", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    expected_fingerprint: str
    dimensions: int
    truncation: Truncation
    orientation: Orientation
    priority: Priority
    def __init__(self, model: _Optional[str] = ..., expected_fingerprint: _Optional[str] = ..., dimensions: _Optional[int] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., orientation: _Optional[_Union[Orientation, str]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class Space(_message.Message):
    __slots__ = ("model", "version", "fingerprint", "dimensions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    fingerprint: str
    dimensions: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., fingerprint: _Optional[str] = ..., dimensions: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_us", "queue_us", "engine_us")
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    ENGINE_US_FIELD_NUMBER: _ClassVar[int]
    decode_us: int
    queue_us: int
    engine_us: int
    def __init__(self, decode_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., engine_us: _Optional[int] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("options", "inputs", "data_type")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    options: Options
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    data_type: DataType
    def __init__(self, options: _Optional[_Union[Options, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., data_type: _Optional[_Union[DataType, str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("space", "data_type", "results", "timings")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    data_type: DataType
    results: _containers.RepeatedCompositeFieldContainer[EmbedResult]
    timings: Timings
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., data_type: _Optional[_Union[DataType, str]] = ..., results: _Optional[_Iterable[_Union[EmbedResult, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class EmbedResult(_message.Message):
    __slots__ = ("embedding", "error", "tokens", "tokens_dropped")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    embedding: bytes
    error: _status_pb2.Status
    tokens: int
    tokens_dropped: int
    def __init__(self, embedding: _Optional[bytes] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., tokens: _Optional[int] = ..., tokens_dropped: _Optional[int] = ...) -> None: ...

class EmbedStreamRequest(_message.Message):
    __slots__ = ("options", "inputs")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    options: EmbedStreamOptions
    inputs: _containers.RepeatedCompositeFieldContainer[EmbedStreamInput]
    def __init__(self, options: _Optional[_Union[EmbedStreamOptions, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[EmbedStreamInput, _Mapping]]] = ...) -> None: ...

class EmbedStreamOptions(_message.Message):
    __slots__ = ("options", "data_type")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    options: Options
    data_type: DataType
    def __init__(self, options: _Optional[_Union[Options, _Mapping]] = ..., data_type: _Optional[_Union[DataType, str]] = ...) -> None: ...

class EmbedStreamInput(_message.Message):
    __slots__ = ("id", "input")
    ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    input: Input
    def __init__(self, id: _Optional[str] = ..., input: _Optional[_Union[Input, _Mapping]] = ...) -> None: ...

class EmbedStreamResponse(_message.Message):
    __slots__ = ("space", "data_type", "results")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    data_type: DataType
    results: _containers.RepeatedCompositeFieldContainer[EmbedStreamResult]
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., data_type: _Optional[_Union[DataType, str]] = ..., results: _Optional[_Iterable[_Union[EmbedStreamResult, _Mapping]]] = ...) -> None: ...

class EmbedStreamResult(_message.Message):
    __slots__ = ("id", "result")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: EmbedResult
    def __init__(self, id: _Optional[str] = ..., result: _Optional[_Union[EmbedResult, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("options", "queries", "candidates", "label_set", "templates", "measure", "pairing", "top_k")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    PAIRING_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    options: Options
    queries: _containers.RepeatedCompositeFieldContainer[Input]
    candidates: _containers.RepeatedCompositeFieldContainer[Input]
    label_set: str
    templates: _containers.RepeatedScalarFieldContainer[str]
    measure: Measure
    pairing: Pairing
    top_k: int
    def __init__(self, options: _Optional[_Union[Options, _Mapping]] = ..., queries: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., candidates: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., label_set: _Optional[str] = ..., templates: _Optional[_Iterable[str]] = ..., measure: _Optional[_Union[Measure, str]] = ..., pairing: _Optional[_Union[Pairing, str]] = ..., top_k: _Optional[int] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("space", "measure", "results", "timings", "labels")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    measure: Measure
    results: _containers.RepeatedCompositeFieldContainer[ScoreResult]
    timings: Timings
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., measure: _Optional[_Union[Measure, str]] = ..., results: _Optional[_Iterable[_Union[ScoreResult, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class ScoreResult(_message.Message):
    __slots__ = ("scores", "error")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    scores: Scores
    error: _status_pb2.Status
    def __init__(self, scores: _Optional[_Union[Scores, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("values", "candidates")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    candidates: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[bytes] = ..., candidates: _Optional[_Iterable[int]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "limits")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    limits: Limits
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("space", "image_size", "context_length", "logit_scale", "logit_bias", "default_measure", "precision", "engine", "source", "licence", "label_sets")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LOGIT_SCALE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MEASURE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SETS_FIELD_NUMBER: _ClassVar[int]
    space: Space
    image_size: int
    context_length: int
    logit_scale: float
    logit_bias: float
    default_measure: Measure
    precision: str
    engine: str
    source: str
    licence: str
    label_sets: _containers.RepeatedCompositeFieldContainer[LabelSet]
    def __init__(self, space: _Optional[_Union[Space, _Mapping]] = ..., image_size: _Optional[int] = ..., context_length: _Optional[int] = ..., logit_scale: _Optional[float] = ..., logit_bias: _Optional[float] = ..., default_measure: _Optional[_Union[Measure, str]] = ..., precision: _Optional[str] = ..., engine: _Optional[str] = ..., source: _Optional[str] = ..., licence: _Optional[str] = ..., label_sets: _Optional[_Iterable[_Union[LabelSet, _Mapping]]] = ...) -> None: ...

class LabelSet(_message.Message):
    __slots__ = ("name", "version", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    size: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("inputs_per_request", "request_bytes", "image_bytes", "image_pixels", "text_characters", "templated_texts", "stream_inputs", "image_formats")
    INPUTS_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    TEXT_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATED_TEXTS_FIELD_NUMBER: _ClassVar[int]
    STREAM_INPUTS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMATS_FIELD_NUMBER: _ClassVar[int]
    inputs_per_request: int
    request_bytes: int
    image_bytes: int
    image_pixels: int
    text_characters: int
    templated_texts: int
    stream_inputs: int
    image_formats: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, inputs_per_request: _Optional[int] = ..., request_bytes: _Optional[int] = ..., image_bytes: _Optional[int] = ..., image_pixels: _Optional[int] = ..., text_characters: _Optional[int] = ..., templated_texts: _Optional[int] = ..., stream_inputs: _Optional[int] = ..., image_formats: _Optional[_Iterable[str]] = ...) -> None: ...
