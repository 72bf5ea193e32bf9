"""Whose host and base path a request line has: the vendors we know, and those a folder adds.

Floor 1, pure. A provider is data: where it listens, and which registered formats it speaks. The
formats claim what comes after the base path. Sources: the vendors' API references, recorded requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache

# What OpenAI's API consists of, wherever it is mounted; `/v1` is part of the base path.
OPENAI = (
    "openai_chat",
    "openai_completions",
    "openai_responses",
    "openai_embeddings",
    "openai_images",
    "openai_audio",
    "openai_moderations",
    "openai_realtime",
    "openai_files",
    "openai_assistants",
)
ANTHROPIC = ("anthropic_messages", "anthropic_batches", "anthropic_complete")
COMPATIBLE = (*OPENAI, "rerank", *ANTHROPIC)

MODEL = "{model}"
ANY = "*"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where one vendor's API listens and what it speaks.

    A host may begin with `*`. A segment of `base_path` may be `*` (any one segment) or `{model}`
    (the segment names the model). No hosts: whatever host; an empty name: the format's own provider.
    """

    formats: tuple[str, ...]
    name: str = ""  # OpenTelemetry gen_ai.provider.name
    hosts: tuple[str, ...] = ()
    base_path: str = ""

    @cached_property
    def _base(self) -> tuple[str, ...]:
        return tuple(filter(None, self.base_path.split("/")))

    def matches_host(self, host: str) -> bool:
        """Whether this vendor listens there; `host` is lower case and has no port."""
        return not self.hosts or any(fnmatchcase(host, pattern) for pattern in self.hosts)

    def strip(self, segments: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
        """What follows the base path, and the model it names; None where the path is not below it."""
        base = self._base
        if len(segments) < len(base):
            return None
        model = ""
        for wanted, found in zip(base, segments, strict=False):
            if wanted == MODEL:
                model = found
            elif wanted not in (ANY, found):
                return None
        return segments[len(base) :], model


def _at(name: str, host: str, *bases: str, formats: tuple[str, ...] = COMPATIBLE) -> tuple[Provider, ...]:
    return tuple(
        Provider(name=name, hosts=tuple(host.split()), base_path=base, formats=formats) for base in bases
    )


_AZURE_HOSTS = "*.openai.azure.com *.cognitiveservices.azure.com *.services.ai.azure.com *.azure-api.net"
_AZURE_DEPLOYMENT = "/openai/deployments/{model}"
_VERTEX_HOSTS = "*aiplatform.googleapis.com aiplatform.*.rep.googleapis.com"
# With FIPS, dual-stack and China's names, and those of private links.
_BEDROCK_HOSTS = (
    "bedrock-runtime*.amazonaws.com bedrock-runtime*.amazonaws.com.cn bedrock-runtime*.api.aws"
    " *.bedrock-runtime*.amazonaws.com"
)
_SAGEMAKER_HOSTS = "runtime*.sagemaker.*.amazonaws.com runtime*.sagemaker.*.amazonaws.com.cn"
_OPENAPI = "/*/projects/*/locations/*/endpoints/openapi"  # Vertex's OpenAI endpoint, any version
_VERTEX_ENDPOINT = "/*/projects/*/locations/*/endpoints/{model}"  # an open model that a project deployed
_VERTEX = ("vertex", "vertex_anthropic", "vertex_openai")

# The first that matches and whose formats claim the line decides; those with hosts come first.
KNOWN: tuple[Provider, ...] = (
    *_at("openai", "api.openai.com *.api.openai.com", "/v1", formats=OPENAI),
    *_at("azure.ai.openai", _AZURE_HOSTS, _AZURE_DEPLOYMENT, "/openai/v1", "/openai", formats=OPENAI),
    *_at("azure.ai.inference", _AZURE_HOSTS + " *.models.ai.azure.com", "/models", "/v1", ""),
    *_at("anthropic", "api.anthropic.com", "/v1", formats=(*ANTHROPIC, "openai_chat")),
    *_at("gcp.gemini", "generativelanguage.googleapis.com", "/v1beta/openai", formats=OPENAI),
    *_at(
        "gcp.gemini",
        "generativelanguage.googleapis.com",
        "",
        formats=("gemini", "gemini_interactions"),
    ),
    *_at("gcp.vertex_ai", _VERTEX_HOSTS, _OPENAPI, formats=OPENAI),
    *_at("gcp.vertex_ai", _VERTEX_HOSTS, "", formats=(*_VERTEX, "gemini_interactions")),
    *_at("gcp.vertex_ai", _VERTEX_HOSTS, _VERTEX_ENDPOINT, formats=("openai_chat",)),
    *_at("aws.bedrock", _BEDROCK_HOSTS, "", formats=("bedrock_converse", "bedrock_invoke")),
    *_at("aws.bedrock", _BEDROCK_HOSTS, "/openai/v1", formats=OPENAI),
    *_at("aws.bedrock", "bedrock-mantle.*.api.aws", "/openai/v1", "/v1", "/anthropic/v1"),
    *_at("aws.sagemaker", _SAGEMAKER_HOSTS, "", formats=("tgi",)),
    *_at("mistral_ai", "api.mistral.ai codestral.mistral.ai", "/v1", formats=("mistral", *OPENAI)),
    *_at("groq", "api.groq.com", "/openai/v1", formats=OPENAI),
    *_at("deepseek", "api.deepseek.com", "/v1", "/beta", "/anthropic/v1", ""),
    *_at("x_ai", "api.x.ai *.api.x.ai", "/v1"),
    *_at("openrouter", "openrouter.ai", "/api/v1"),
    *_at("together_ai", "api.together.xyz api.together.ai", "/v1"),
    *_at("fireworks_ai", "api.fireworks.ai", "/inference/v1"),
    *_at("perplexity", "api.perplexity.ai", "/v1", "", formats=OPENAI),
    *_at("cerebras", "api.cerebras.ai", "/v1", formats=OPENAI),
    *_at("jina", "api.jina.ai", "/v1", formats=("openai_embeddings", "rerank")),
    *_at("voyage_ai", "api.voyageai.com", "/v1", formats=("openai_embeddings", "rerank")),
    *_at("writer", "api.writer.com", "/v1", formats=("writer", *OPENAI)),
    *_at("cohere", "api.cohere.com api.cohere.ai", "", formats=("cohere_v2", "cohere_v1")),
    *_at("cohere", "api.cohere.com api.cohere.ai", "/compatibility/v1", formats=OPENAI),
    *_at("ibm.watsonx.ai", "*.ml.cloud.ibm.com", "", formats=("watsonx",)),
    *_at("replicate", "api.replicate.com *.replicate.net *.replicate.com", "", formats=("replicate",)),
    *_at("hugging_face", "*.endpoints.huggingface.cloud", "", formats=("tgi",)),
    *_at("hugging_face", "router.huggingface.co *.endpoints.huggingface.cloud", "/v1"),
    # Whatever the host: a gateway has one name of its own.
    # Before OpenAI's lists of models and files, which Gemini claims where the caller shows Google's key.
    Provider(formats=("gemini",)),
    Provider(base_path="/v1", formats=(*COMPATIBLE, "mistral")),
    Provider(
        formats=(
            "gemini_interactions",
            *_VERTEX,
            "bedrock_converse",
            "bedrock_invoke",
            "cohere_v2",
            "cohere_v1",
            "ollama",
            "vllm",
            "rerank",
            "tgi",
            "watsonx",
            "mcp",
        )
    ),
    Provider(base_path="/cohere", formats=("cohere_v2",)),  # vLLM's copy of it
    Provider(name="azure.ai.openai", base_path=_AZURE_DEPLOYMENT, formats=OPENAI),
    Provider(name="azure.ai.openai", base_path="/openai/v1", formats=OPENAI),
    Provider(name="azure.ai.openai", base_path="/openai", formats=OPENAI),
    Provider(name="openrouter", base_path="/api/v1", formats=COMPATIBLE),
    Provider(name="gcp.gemini", base_path="/v1beta/openai", formats=OPENAI),
    Provider(name="gcp.vertex_ai", base_path=_OPENAPI, formats=OPENAI),
)

# Clients choose host names, so what is remembered of them is bounded.
_REMEMBERED_HOSTS = 1024


@lru_cache(_REMEMBERED_HOSTS)
def known_at(host: str) -> tuple[Provider, ...]:
    """The known providers that listen at a host, in their order."""
    return tuple(provider for provider in KNOWN if provider.matches_host(host))


NAMES = frozenset(
    {provider.name for provider in KNOWN if provider.name} | {"ollama", "vllm", "mcp", "openai", "anthropic"}
)
