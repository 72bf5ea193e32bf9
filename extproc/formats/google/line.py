"""Request lines of Google's APIs: versions, custom methods, and the parameters that must not pass.

Floor 1, pure. Sources: Google Cloud system parameters, AIP-136, discovery documents of both APIs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import CONTROL, BodyKind, RequestLine
from extproc.formats.fields import refused_parameter

VERSIONS = frozenset({"v1", "v1beta", "v1alpha", "v1beta1"})

# Whatever else there is may drop the usage (`fields`), wrap or encode the answer (`callback`, `$ct`,
# `alt=proto`), or read the body in another way.
_PARAMETERS = frozenset(
    {"alt", "$alt", "key", "pageSize", "pageToken", "prettyPrint", "$prettyPrint", "quotaUser"}
)
_ENCODINGS = frozenset({"sse", "json", "json;enum-encoding=int"})
_FIELD_MASK = "x-goog-fieldmask"

# The operation of each custom method that takes JSON; an empty one depends on the model.
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "generateContent": "generate_content",
        "streamGenerateContent": "generate_content",
        "embedContent": "embeddings",
        "batchEmbedContents": "embeddings",
        "batchGenerateContent": "batch",
        "asyncBatchEmbedContent": "batch",
        "predict": "",
        "predictLongRunning": "",
        "countTokens": CONTROL,
        "computeTokens": CONTROL,
        "fetchPredictOperation": CONTROL,
    }
)
STREAMED = "streamGenerateContent"
# A POST to it is billed as input: what it holds is read once, to be kept.
CACHE = "cachedContents"
_DOWNLOAD, _CANCEL = ":download", ":cancel"
_CANCELLED = frozenset({"batches", "batchPredictionJobs"})
_IMAGE_MODELS = ("imagen", "imagegeneration", "imagetext", "veo", "virtual-try-on")


def operation_of(method: str, model: str) -> str:
    """The operation of a custom method on a model; empty for a method that is not known."""
    operation = METHODS.get(method, "")
    if operation or method not in METHODS:
        return operation
    if "embedding" in model:
        return "embeddings"
    return "image_generation" if model.startswith(_IMAGE_MODELS) else "prediction"


def split_method(segment: str) -> tuple[str, str]:
    """Resource and custom method of `x:generateContent`; both empty where it is no such pair."""
    name, colon, method = segment.rpartition(":")
    return (name, method) if colon and name and ":" not in name else ("", "")


def control_body(
    bodies: Mapping[str, Mapping[str, BodyKind]], line: RequestLine, collection: str
) -> BodyKind | None:
    """The body of a call that spends nothing, by collection and method; None for any other call."""
    last = line.segments[-1]
    if ":" not in last or last.endswith(_DOWNLOAD):
        return bodies.get(collection, {}).get(line.method)
    is_cancel = line.method == "POST" and collection in _CANCELLED and last.endswith(_CANCEL)
    return BodyKind.OPAQUE if is_cancel else None


def check_parameters(line: RequestLine) -> None:
    """Refuse what changes how a call or its answer is written. Raises `RequestRefused` (400)."""
    for name, value in line.query.items():
        if name not in _PARAMETERS or (name in ("alt", "$alt") and value not in _ENCODINGS):
            raise refused_parameter(name)
    if "alt" in line.query and "$alt" in line.query:
        raise refused_parameter("$alt")
    if _FIELD_MASK in line.headers:
        message = f"The header {_FIELD_MASK} changes how this answer is written and is not accepted here."
        raise RequestRefused(status=400, code=Reason.UNCLASSIFIED, message=message)
