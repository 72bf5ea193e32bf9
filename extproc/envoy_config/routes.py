"""Which paths are AI traffic and who answers them: a table, read from top to bottom.

Pure. A path that no line names is refused by Envoy itself; what a call means is the sidecar's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from extproc.envoy_config.settings import ANTHROPIC_CLUSTER, GEMINI_CLUSTER, OPENAI_CLUSTER, OTHER_CLUSTER


@dataclass(frozen=True, slots=True, kw_only=True)
class AIRoute:
    """One line of the table; `match` is a path matcher of Envoy's, as YAML in flow style without braces.

    `openai_base` is where a vendor mounts OpenAI's API: its own provider gets the path as it is, and
    `rewrite`, a regular expression, is what the demo provider has /v1/ in place of.
    """

    name: str
    match: str
    cluster: str
    openai_rest: str = ""  # what comes after /v1/, where `openai_base` is /v1/
    openai_base: str = ""
    rewrite: str = ""


def _openai(name: str, kind: str, rest: str, also: str = "") -> AIRoute:
    match = f"{kind}: /v1/{rest}{also}"
    return AIRoute(name=name, match=match, cluster=OPENAI_CLUSTER, openai_base="/v1/", openai_rest=rest)


def _at(cluster: str, name: str, match: str) -> AIRoute:
    return AIRoute(name=name, match=match, cluster=cluster)


def _mounted(name: str, match: str, base: str, rewrite: str = "") -> AIRoute:
    """OpenAI's API at another vendor's base path."""
    return AIRoute(
        name=name, match=match, cluster=OTHER_CLUSTER, openai_base=base, rewrite=rewrite or f"^{base}"
    )


def _regex(pattern: str) -> str:
    return f"safe_regex: {{regex: {json.dumps(pattern)}}}"


def _header(name: str) -> str:
    return f", headers: [{{name: {name}, present_match: true}}]"


# A model's name or ARN as one segment. No part of it begins with a dot, so its escaped slashes make
# no dot segment, whoever unescapes them.
_ARN_PART = "(?:[\\w:-]|%3[Aa])(?:[\\w.:-]|%3[Aa])*"
_ARN = f"{_ARN_PART}(?:%2[Ff]{_ARN_PART})+"
# An OpenAI model's name may end with a colon and a word too. Older Envoys take no longer expression.
_GEMINI_VERB = "(?:generate|stream|count|compute|embed|batch|predict)[A-Z][A-Za-z]*"

# Escaped slashes are Bedrock's alone; nobody's are backslashes, semicolons and second escapes.
ESCAPED_ARN = _at(OTHER_CLUSTER, "bedrock_arn", _regex(f"/model/{_ARN}/[a-z-]+"))
TWO_READINGS = _regex(".*(?:%(?:25|2[Ff]|3[Bb]|5[Cc])|[;\\\\]).*")

_COHERE_V1 = ("chat", "generate", "summarize", "embed", "classify", "rerank", "tokenize", "detokenize")

# Servers of open models: vLLM, SGLang, text-generation-inference, SageMaker.
_MODEL_SERVERS = (
    *(
        f"path: /{name}"
        for name in (
            "invocations",
            "generate",
            "generate_stream",
            "tokenize",
            "detokenize",
            "pooling",
            "score",
            "rerank",
            "classify",
        )
    ),
    _regex("/endpoints/[^/]+/invocations(?:-response-stream)?"),
    "prefix: /inference/v1/",
    "prefix: /cohere/v2/",
)

AI_ROUTES = (
    _openai("openai_chat", "path", "chat/completions"),
    _at(ANTHROPIC_CLUSTER, "anthropic_messages", "path_separated_prefix: /v1/messages"),
    _at(ANTHROPIC_CLUSTER, "anthropic_complete", "path: /v1/complete"),
    _at(GEMINI_CLUSTER, "gemini_v1", _regex(f"/v1/(?:models|tunedModels)/[^/]+(?::|%3[Aa]){_GEMINI_VERB}")),
    _at(
        ANTHROPIC_CLUSTER,
        "anthropic_models",
        "path_separated_prefix: /v1/models" + _header("anthropic-version"),
    ),
    _at(GEMINI_CLUSTER, "gemini_models", "path_separated_prefix: /v1/models" + _header("x-goog-api-key")),
    _openai("openai_models", "path_separated_prefix", "models"),
    _mounted(
        "vertex_openai",
        _regex("/v1[a-z0-9]*/projects/.+/endpoints/openapi/.+"),
        "",
        "^/v1[a-z0-9]*/projects/.+/endpoints/openapi/",
    ),
    _at(OTHER_CLUSTER, "vertex", _regex("/v1(?:beta1)?/(?:projects|publishers)/.+")),
    *(_at(OTHER_CLUSTER, "cohere_v1", f"path: /v1/{rest}") for rest in _COHERE_V1),
    # Everything else below /v1/ is for the policies to judge, which refuse what they cannot classify.
    _openai("ai_other", "prefix", ""),
    _mounted("gemini_openai", "prefix: /v1beta/openai/", "/v1beta/openai/"),
    _at(GEMINI_CLUSTER, "gemini", _regex("(?:/upload)?/v1(?:beta|alpha)/.+")),
    _at(GEMINI_CLUSTER, "gemini_v1", "path_separated_prefix: /upload/v1/files"),
    _at(OTHER_CLUSTER, "cohere_v2", "prefix: /v2/"),
    _at(OTHER_CLUSTER, "bedrock", _regex("/(?:model|guardrail|async-invoke)/.+")),
    _mounted("openrouter", "prefix: /api/v1/", "/api/v1/"),
    _at(OTHER_CLUSTER, "ollama", "prefix: /api/"),
    _mounted("azure", "prefix: /openai/", "", "^/openai/(?:deployments/[^/]+/|v1/)?"),
    _at(OTHER_CLUSTER, "watsonx", "prefix: /ml/"),
    *(_at(OTHER_CLUSTER, "model_server", match) for match in _MODEL_SERVERS),
    _at(OTHER_CLUSTER, "mcp", "path_separated_prefix: /mcp"),
)
