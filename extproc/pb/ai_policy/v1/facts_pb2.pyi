import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Facts(_message.Message):
    __slots__ = ("request", "identity", "target", "tokens", "cost", "source", "now")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    request: RequestFacts
    identity: IdentityFacts
    target: TargetFacts
    tokens: TokenFacts
    cost: CostFacts
    source: SourceFacts
    now: _timestamp_pb2.Timestamp
    def __init__(self, request: _Optional[_Union[RequestFacts, _Mapping]] = ..., identity: _Optional[_Union[IdentityFacts, _Mapping]] = ..., target: _Optional[_Union[TargetFacts, _Mapping]] = ..., tokens: _Optional[_Union[TokenFacts, _Mapping]] = ..., cost: _Optional[_Union[CostFacts, _Mapping]] = ..., source: _Optional[_Union[SourceFacts, _Mapping]] = ..., now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RequestFacts(_message.Message):
    __slots__ = ("api", "provider", "operation", "model", "models", "stream", "choices", "message_count", "tools", "modalities", "end_user", "temperature", "has_state", "method", "host", "path", "headers", "body_bytes")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    API_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    END_USER_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    HAS_STATE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    api: str
    provider: str
    operation: str
    model: str
    models: _containers.RepeatedScalarFieldContainer[str]
    stream: bool
    choices: int
    message_count: int
    tools: _containers.RepeatedScalarFieldContainer[str]
    modalities: _containers.RepeatedScalarFieldContainer[str]
    end_user: str
    temperature: float
    has_state: bool
    method: str
    host: str
    path: str
    headers: _containers.ScalarMap[str, str]
    body_bytes: int
    def __init__(self, api: _Optional[str] = ..., provider: _Optional[str] = ..., operation: _Optional[str] = ..., model: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., stream: _Optional[bool] = ..., choices: _Optional[int] = ..., message_count: _Optional[int] = ..., tools: _Optional[_Iterable[str]] = ..., modalities: _Optional[_Iterable[str]] = ..., end_user: _Optional[str] = ..., temperature: _Optional[float] = ..., has_state: _Optional[bool] = ..., method: _Optional[str] = ..., host: _Optional[str] = ..., path: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., body_bytes: _Optional[int] = ...) -> None: ...

class IdentityFacts(_message.Message):
    __slots__ = ("id", "user", "team", "org", "groups", "labels", "claims", "key", "authenticated")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    ORG_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    id: str
    user: str
    team: str
    org: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.ScalarMap[str, str]
    claims: _containers.ScalarMap[str, str]
    key: str
    authenticated: bool
    def __init__(self, id: _Optional[str] = ..., user: _Optional[str] = ..., team: _Optional[str] = ..., org: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., claims: _Optional[_Mapping[str, str]] = ..., key: _Optional[str] = ..., authenticated: _Optional[bool] = ...) -> None: ...

class TargetFacts(_message.Message):
    __slots__ = ("model", "provider", "cluster")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    provider: str
    cluster: str
    def __init__(self, model: _Optional[str] = ..., provider: _Optional[str] = ..., cluster: _Optional[str] = ...) -> None: ...

class TokenFacts(_message.Message):
    __slots__ = ("input", "input_upper_bound", "max_output", "exact")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INPUT_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    input: int
    input_upper_bound: int
    max_output: int
    exact: bool
    def __init__(self, input: _Optional[int] = ..., input_upper_bound: _Optional[int] = ..., max_output: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class CostFacts(_message.Message):
    __slots__ = ("estimated_usd",)
    ESTIMATED_USD_FIELD_NUMBER: _ClassVar[int]
    estimated_usd: _wrappers_pb2.DoubleValue
    def __init__(self, estimated_usd: _Optional[_Union[_wrappers_pb2.DoubleValue, _Mapping]] = ...) -> None: ...

class SourceFacts(_message.Message):
    __slots__ = ("address", "principal", "route")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    address: str
    principal: str
    route: str
    def __init__(self, address: _Optional[str] = ..., principal: _Optional[str] = ..., route: _Optional[str] = ...) -> None: ...
