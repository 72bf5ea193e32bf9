from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_KIND_UNSPECIFIED: _ClassVar[UsageKind]
    SETTLE: _ClassVar[UsageKind]
    EXPIRE: _ClassVar[UsageKind]
    ADJUST: _ClassVar[UsageKind]
USAGE_KIND_UNSPECIFIED: UsageKind
SETTLE: UsageKind
EXPIRE: UsageKind
ADJUST: UsageKind

class DecisionRecord(_message.Message):
    __slots__ = ("decision_id", "instance", "revision", "started_at_ns", "decided_at_ns", "trace_id", "span_id", "facts", "declared_max_output_tokens", "estimator", "uncalibrated_input_tokens", "target_model", "verdict", "findings", "charges", "error_type", "attributes", "shed")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    DECLARED_MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    UNCALIBRATED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODEL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    CHARGES_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    instance: str
    revision: str
    started_at_ns: int
    decided_at_ns: int
    trace_id: str
    span_id: str
    facts: bytes
    declared_max_output_tokens: int
    estimator: str
    uncalibrated_input_tokens: int
    target_model: str
    verdict: Verdict
    findings: _containers.RepeatedCompositeFieldContainer[FindingRecord]
    charges: _containers.RepeatedCompositeFieldContainer[ChargeRecord]
    error_type: str
    attributes: _containers.ScalarMap[str, str]
    shed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision_id: _Optional[str] = ..., instance: _Optional[str] = ..., revision: _Optional[str] = ..., started_at_ns: _Optional[int] = ..., decided_at_ns: _Optional[int] = ..., trace_id: _Optional[str] = ..., span_id: _Optional[str] = ..., facts: _Optional[bytes] = ..., declared_max_output_tokens: _Optional[int] = ..., estimator: _Optional[str] = ..., uncalibrated_input_tokens: _Optional[int] = ..., target_model: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[FindingRecord, _Mapping]]] = ..., charges: _Optional[_Iterable[_Union[ChargeRecord, _Mapping]]] = ..., error_type: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., shed: _Optional[_Iterable[str]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("effect", "enforced_effect", "reason", "determining", "would_deny", "status", "denial_reason", "message", "retry_after_ms", "limit", "denied_at_ns")
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    ENFORCED_EFFECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    WOULD_DENY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DENIAL_REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DENIED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    effect: str
    enforced_effect: str
    reason: str
    determining: str
    would_deny: bool
    status: int
    denial_reason: str
    message: str
    retry_after_ms: int
    limit: LimitRecord
    denied_at_ns: int
    def __init__(self, effect: _Optional[str] = ..., enforced_effect: _Optional[str] = ..., reason: _Optional[str] = ..., determining: _Optional[str] = ..., would_deny: _Optional[bool] = ..., status: _Optional[int] = ..., denial_reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., limit: _Optional[_Union[LimitRecord, _Mapping]] = ..., denied_at_ns: _Optional[int] = ...) -> None: ...

class FindingRecord(_message.Message):
    __slots__ = ("policy", "outcome", "mode", "effect", "reason", "message", "limit", "determining", "evaluated_model", "warning")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DETERMINING_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_MODEL_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    policy: str
    outcome: str
    mode: str
    effect: str
    reason: str
    message: str
    limit: LimitRecord
    determining: bool
    evaluated_model: str
    warning: str
    def __init__(self, policy: _Optional[str] = ..., outcome: _Optional[str] = ..., mode: _Optional[str] = ..., effect: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., limit: _Optional[_Union[LimitRecord, _Mapping]] = ..., determining: _Optional[bool] = ..., evaluated_model: _Optional[str] = ..., warning: _Optional[str] = ...) -> None: ...

class LimitRecord(_message.Message):
    __slots__ = ("unit", "limit", "window_s", "used", "requested", "reserved", "remaining", "reset_ms", "wait_ms", "key")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    RESET_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    unit: str
    limit: int
    window_s: float
    used: int
    requested: int
    reserved: int
    remaining: int
    reset_ms: int
    wait_ms: int
    key: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, unit: _Optional[str] = ..., limit: _Optional[int] = ..., window_s: _Optional[float] = ..., used: _Optional[int] = ..., requested: _Optional[int] = ..., reserved: _Optional[int] = ..., remaining: _Optional[int] = ..., reset_ms: _Optional[int] = ..., wait_ms: _Optional[int] = ..., key: _Optional[_Iterable[str]] = ...) -> None: ...

class ChargeRecord(_message.Message):
    __slots__ = ("policy", "counter", "unit", "amount", "minimum", "token_bucket", "sliding_window", "calendar_window", "leases", "enforced", "must_count", "key", "outcome")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUCKET_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    CALENDAR_WINDOW_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    ENFORCED_FIELD_NUMBER: _ClassVar[int]
    MUST_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    policy: str
    counter: str
    unit: str
    amount: int
    minimum: int
    token_bucket: TokenBucketRecord
    sliding_window: SlidingWindowRecord
    calendar_window: CalendarWindowRecord
    leases: LeasesRecord
    enforced: bool
    must_count: bool
    key: _containers.RepeatedScalarFieldContainer[str]
    outcome: OutcomeRecord
    def __init__(self, policy: _Optional[str] = ..., counter: _Optional[str] = ..., unit: _Optional[str] = ..., amount: _Optional[int] = ..., minimum: _Optional[int] = ..., token_bucket: _Optional[_Union[TokenBucketRecord, _Mapping]] = ..., sliding_window: _Optional[_Union[SlidingWindowRecord, _Mapping]] = ..., calendar_window: _Optional[_Union[CalendarWindowRecord, _Mapping]] = ..., leases: _Optional[_Union[LeasesRecord, _Mapping]] = ..., enforced: _Optional[bool] = ..., must_count: _Optional[bool] = ..., key: _Optional[_Iterable[str]] = ..., outcome: _Optional[_Union[OutcomeRecord, _Mapping]] = ...) -> None: ...

class TokenBucketRecord(_message.Message):
    __slots__ = ("amount", "per_us", "burst")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PER_US_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    amount: int
    per_us: int
    burst: int
    def __init__(self, amount: _Optional[int] = ..., per_us: _Optional[int] = ..., burst: _Optional[int] = ...) -> None: ...

class SlidingWindowRecord(_message.Message):
    __slots__ = ("size", "per_us")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PER_US_FIELD_NUMBER: _ClassVar[int]
    size: int
    per_us: int
    def __init__(self, size: _Optional[int] = ..., per_us: _Optional[int] = ...) -> None: ...

class CalendarWindowRecord(_message.Message):
    __slots__ = ("size", "period", "edges_us")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    EDGES_US_FIELD_NUMBER: _ClassVar[int]
    size: int
    period: str
    edges_us: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, size: _Optional[int] = ..., period: _Optional[str] = ..., edges_us: _Optional[_Iterable[int]] = ...) -> None: ...

class LeasesRecord(_message.Message):
    __slots__ = ("size", "ttl_us")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TTL_US_FIELD_NUMBER: _ClassVar[int]
    size: int
    ttl_us: int
    def __init__(self, size: _Optional[int] = ..., ttl_us: _Optional[int] = ...) -> None: ...

class OutcomeRecord(_message.Message):
    __slots__ = ("granted", "reserved", "used", "remaining", "wait_us", "reset_us", "limit", "unavailable")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    WAIT_US_FIELD_NUMBER: _ClassVar[int]
    RESET_US_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    granted: bool
    reserved: int
    used: int
    remaining: int
    wait_us: int
    reset_us: int
    limit: int
    unavailable: bool
    def __init__(self, granted: _Optional[bool] = ..., reserved: _Optional[int] = ..., used: _Optional[int] = ..., remaining: _Optional[int] = ..., wait_us: _Optional[int] = ..., reset_us: _Optional[int] = ..., limit: _Optional[int] = ..., unavailable: _Optional[bool] = ...) -> None: ...

class UsageRecord(_message.Message):
    __slots__ = ("decision_id", "sequence", "kind", "basis", "usage", "nano_usd", "price_revision", "amounts", "model", "response_id", "status", "finish_reasons", "error_type", "first_byte_at_ns", "ended_at_ns", "instance", "provisional", "shed")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    NANO_USD_FIELD_NUMBER: _ClassVar[int]
    PRICE_REVISION_FIELD_NUMBER: _ClassVar[int]
    AMOUNTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_AT_NS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_NS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PROVISIONAL_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    sequence: int
    kind: UsageKind
    basis: str
    usage: UsageTokens
    nano_usd: int
    price_revision: str
    amounts: _containers.RepeatedCompositeFieldContainer[AmountRecord]
    model: str
    response_id: str
    status: int
    finish_reasons: _containers.RepeatedScalarFieldContainer[str]
    error_type: str
    first_byte_at_ns: int
    ended_at_ns: int
    instance: str
    provisional: bool
    shed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision_id: _Optional[str] = ..., sequence: _Optional[int] = ..., kind: _Optional[_Union[UsageKind, str]] = ..., basis: _Optional[str] = ..., usage: _Optional[_Union[UsageTokens, _Mapping]] = ..., nano_usd: _Optional[int] = ..., price_revision: _Optional[str] = ..., amounts: _Optional[_Iterable[_Union[AmountRecord, _Mapping]]] = ..., model: _Optional[str] = ..., response_id: _Optional[str] = ..., status: _Optional[int] = ..., finish_reasons: _Optional[_Iterable[str]] = ..., error_type: _Optional[str] = ..., first_byte_at_ns: _Optional[int] = ..., ended_at_ns: _Optional[int] = ..., instance: _Optional[str] = ..., provisional: _Optional[bool] = ..., shed: _Optional[_Iterable[str]] = ...) -> None: ...

class UsageTokens(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_1h_input_tokens", "audio_input_tokens", "image_input_tokens", "tool_input_tokens", "reasoning_output_tokens", "audio_output_tokens", "image_output_tokens", "input_audio_ms")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_CREATION_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_CREATION_1H_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOOL_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_MS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cache_creation_1h_input_tokens: int
    audio_input_tokens: int
    image_input_tokens: int
    tool_input_tokens: int
    reasoning_output_tokens: int
    audio_output_tokens: int
    image_output_tokens: int
    input_audio_ms: int
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cache_read_input_tokens: _Optional[int] = ..., cache_creation_input_tokens: _Optional[int] = ..., cache_creation_1h_input_tokens: _Optional[int] = ..., audio_input_tokens: _Optional[int] = ..., image_input_tokens: _Optional[int] = ..., tool_input_tokens: _Optional[int] = ..., reasoning_output_tokens: _Optional[int] = ..., audio_output_tokens: _Optional[int] = ..., image_output_tokens: _Optional[int] = ..., input_audio_ms: _Optional[int] = ...) -> None: ...

class AmountRecord(_message.Message):
    __slots__ = ("counter", "amount")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    counter: str
    amount: int
    def __init__(self, counter: _Optional[str] = ..., amount: _Optional[int] = ...) -> None: ...

class ChangeRecord(_message.Message):
    __slots__ = ("change_id", "at_ns", "action", "subject", "key", "details", "instance", "shed")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: DetailRecord
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[DetailRecord, _Mapping]] = ...) -> None: ...
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    AT_NS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    change_id: str
    at_ns: int
    action: str
    subject: str
    key: _containers.RepeatedScalarFieldContainer[str]
    details: _containers.MessageMap[str, DetailRecord]
    instance: str
    shed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, change_id: _Optional[str] = ..., at_ns: _Optional[int] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., key: _Optional[_Iterable[str]] = ..., details: _Optional[_Mapping[str, DetailRecord]] = ..., instance: _Optional[str] = ..., shed: _Optional[_Iterable[str]] = ...) -> None: ...

class DetailRecord(_message.Message):
    __slots__ = ("text", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    number: int
    def __init__(self, text: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...
