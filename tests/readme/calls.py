"""The calls that a gateway of any name takes, as classification itself finds them."""

from __future__ import annotations

from collections import defaultdict

from extproc.formats import FORMATS
from extproc.formats.base import CONTROL
from extproc.formats.classify import claim
from extproc.formats.providers import KNOWN
from extproc.model import RequestHead
from tests.readme.markdown import code, table

_GATEWAY = "ai.example"
# One of each; a host is named where only its vendor's path means this.
_CALLS = (
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/fim/completions",
    "POST /v1/responses",
    "POST /v1/responses/input_tokens",
    "POST /v1/embeddings",
    "POST /v1/moderations",
    "POST /v1/images/generations",
    "POST /v1/images/edits",
    "POST /v1/images/variations",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "POST /v1/audio/speech",
    "GET /v1/realtime?model=MODEL",
    "POST /v1/realtime/client_secrets",
    "POST /v1/files",
    "POST /v1/batches",
    "POST /v1/threads/ID/runs",
    "POST /v1/threads",
    "POST /v1/rerank",
    "GET /v1/models",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/messages/batches",
    "POST /v1/complete",
    "POST /openai/deployments/NAME/chat/completions?api-version=DATE",
    "POST /openai/v1/responses",
    "POST /api/v1/chat/completions",
    "POST /v1beta/models/MODEL:generateContent",
    "POST /v1beta/models/MODEL:streamGenerateContent?alt=sse",
    "POST /v1beta/models/MODEL:embedContent",
    "POST /v1beta/models/MODEL:countTokens",
    "POST /v1beta/interactions",
    "POST /v1/projects/P/locations/L/publishers/google/models/MODEL:generateContent",
    "POST /v1/projects/P/locations/L/publishers/anthropic/models/MODEL:streamRawPredict",
    "POST /v1/projects/P/locations/L/publishers/mistralai/models/MODEL:rawPredict",
    "POST /v1/projects/P/locations/L/endpoints/openapi/chat/completions",
    "POST /model/ID/converse",
    "POST /model/ID/converse-stream",
    "POST /model/ID/invoke",
    "POST /model/ID/invoke-with-response-stream",
    "POST /v2/chat",
    "POST /v2/embed",
    "POST /v2/rerank",
    "POST /v1/chat",
    "POST /v1/generate",
    "POST api.mistral.ai/v1/ocr",
    "POST api.mistral.ai/v1/agents/completions",
    "POST /api/chat",
    "POST /api/generate",
    "POST /api/embed",
    "GET /api/tags",
    "POST /invocations",
    "POST /tokenize",
    "POST /generate",
    "POST /ml/v1/text/generation?version=DATE",
    "POST api.replicate.com/v1/predictions",
    "POST api.writer.com/v1/chat",
    "POST /mcp",
)


def calls() -> str:
    """By format: the operation and its calls."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for written in _CALLS:
        method, _, rest = written.partition(" ")
        host, slash, path = rest.partition("/")
        call = claim(RequestHead(method=method, host=host or _GATEWAY, path=slash + path))
        if call is None:
            raise ValueError(f"nobody takes {written}")
        found[call.api, call.operation].append(written)
    order = list(FORMATS)
    missing = set(order) - {api for api, _ in found}
    if missing:
        raise ValueError(f"no call shows {sorted(missing)}")
    rows = sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1] == CONTROL))
    return table(
        ("format (`request.api`)", "`request.operation`", "calls"),
        [(code(api), code(operation), ", ".join(map(code, shown))) for (api, operation), shown in rows],
    )


def providers() -> str:
    """The vendors whose hosts are known."""
    hosts: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for each in KNOWN:
        if each.name and each.hosts:
            hosts[each.name] |= dict.fromkeys(each.hosts)
    return table(
        ("`request.provider`", "hosts"),
        [(code(name), ", ".join(map(code, found))) for name, found in sorted(hosts.items())],
    )
