"""What the product makes of the recorded exchanges; tests hold it to bounds, the README shows it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median
from types import MappingProxyType

from extproc.formats.base import CONTROL
from extproc.measure.families import normalised
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from extproc.model import AIRequest, TokenEstimate
from tests.corpus.exchanges import Exchange, Totals, exchanges, totals
from tests.formats.calls import randomly_chunked
from tests.readme.markdown import code, table

_OPENAI_LIKE = ("openai", "azure", "deepseek", "groq", "mistral", "openrouter", "xai", "other")

# What each recording is, in our words: api and operation, by the recording's provider and operation.
_EXPECTED: Mapping[tuple[str, str], tuple[str, str]] = MappingProxyType(
    {
        **{(provider, "chat"): ("openai_chat", "chat") for provider in _OPENAI_LIKE},
        **{(provider, "completions"): ("openai_completions", "text_completion") for provider in _OPENAI_LIKE},
        **{(provider, "embeddings"): ("openai_embeddings", "embeddings") for provider in _OPENAI_LIKE},
        ("openai", "responses"): ("openai_responses", "chat"),
        ("openai", "images"): ("openai_images", "image_generation"),
        ("openai", "audio.transcriptions"): ("openai_audio", "transcription"),
        ("openai", "audio.translations"): ("openai_audio", "transcription"),
        ("openai", "assistants"): ("openai_assistants", CONTROL),
        ("openai", "threads"): ("openai_assistants", CONTROL),
        ("openai", "threads.messages"): ("openai_assistants", CONTROL),
        ("openai", "threads.runs"): ("openai_assistants", "invoke_agent"),
        ("openai", "threads.runs.object"): ("openai_assistants", CONTROL),
        ("anthropic", "messages"): ("anthropic_messages", "chat"),
        ("anthropic", "anthropic.complete"): ("anthropic_complete", "text_completion"),
        ("gemini", "generateContent"): ("gemini", "generate_content"),
        ("vertex", "generateContent"): ("vertex", "generate_content"),
        ("vertex", "streamGenerateContent"): ("vertex", "generate_content"),
        ("bedrock", "converse"): ("bedrock_converse", "chat"),
        ("bedrock", "converse-stream"): ("bedrock_converse", "chat"),
        ("cohere", "generate"): ("cohere_v1", "text_completion"),
        ("other", "rerank"): ("rerank", "rerank"),
        ("ollama", "ollama.chat"): ("ollama", "chat"),
        ("ollama", "ollama.generate"): ("ollama", "text_completion"),
        ("ollama", "embeddings"): ("ollama", "embeddings"),
        ("other", "watsonx.generation"): ("watsonx", "text_completion"),
        ("other", "watsonx.generation_stream"): ("watsonx", "text_completion"),
        ("other", "replicate.predictions"): ("replicate", "prediction"),
        ("other", "replicate.streams"): ("replicate", CONTROL),
        ("other", "models"): ("replicate", CONTROL),
        ("other", "sagemaker.invocations"): ("tgi", "text_completion"),
        ("huggingface", "tgi.generate"): ("tgi", "text_completion"),
    }
)
# Bedrock's invoke is as many dialects as it has vendors; their operation follows the body.
_INVOKE = ("chat", "text_completion", "embeddings", "image_generation", "rerank")
_COHERE = MappingProxyType({"chat": "chat", "embeddings": "embeddings", "rerank": "rerank"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """One exchange and what became of its request; `wrong` is empty where everything is as recorded."""

    exchange: Exchange
    request: AIRequest | None
    tokens: TokenEstimate
    wrong: str


@cache
def tokenizer() -> Tokenizer:
    """The product's, with its vocabularies."""
    return Tokenizer(load(default_directory(os.environ)))


@cache
def classified() -> tuple[Classified, ...]:
    """Every exchange, understood as the product does it."""
    return tuple(_classified(each) for each in exchanges())


def _classified(each: Exchange) -> Classified:
    found = each.understood(tokenizer())
    wrong = ""
    if found.refused is not None:
        wrong = f"{found.refused.status} {found.refused.code}: {found.refused.message}"
    elif found.request is None:
        wrong = "unclassified: no format claims this path"
    else:
        wrong = "; ".join(_differences(each, found.request))
    return Classified(exchange=each, request=found.request, tokens=found.tokens, wrong=wrong)


def _differences(each: Exchange, request: AIRequest) -> Iterator[str]:
    wanted = _expected(each, request)
    if (request.api, request.operation) != wanted:
        yield f"read as {request.api} {request.operation}, not {' '.join(wanted)}"
    # Calls that spend nothing may leave out what they are about; a run takes its assistant's model.
    if each.model and each.model not in request.models and request.operation != CONTROL:
        yield f"model {request.model}, not {each.model}"
    if each.stream is not None and request.operation != CONTROL and request.stream is not each.stream:
        yield f"stream {request.stream}, not {each.stream}"


def _expected(each: Exchange, request: AIRequest) -> tuple[str, str]:
    if each.operation in ("invoke", "invoke-stream"):
        return "bedrock_invoke", request.operation if request.operation in _INVOKE else "chat"
    if each.provider == "cohere" and each.operation in _COHERE:
        version = "cohere_v2" if each.head.path.startswith("/v2") else "cohere_v1"
        return version, _COHERE[each.operation]
    if "writer.com" in each.head.host:
        return "writer", _EXPECTED[each.provider, each.operation][1]
    if each.head.method == "GET" and each.operation == "replicate.predictions":
        return "replicate", CONTROL
    return _EXPECTED.get((each.provider, each.operation), ("unclassified", ""))


def classification() -> str:
    """How many requests each format took, and every one that is not as recorded."""
    taken: Counter[tuple[str, str, str]] = Counter()
    for each in classified():
        if each.request is not None and not each.wrong:
            taken[(each.request.api, each.request.operation, each.request.provider)] += 1
    apis: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for (api, operation, provider), count in sorted(taken.items()):
        apis[api, operation][provider] = count
    rows = [
        (
            code(api),
            operation,
            ", ".join(f"{name} {count}" for name, count in found.items()),
            sum(found.values()),
        )
        for (api, operation), found in apis.items()
    ]
    rows.append(("**all**", "", "", sum(taken.values())))
    refused = [
        (code(_short(each.exchange.id)), each.exchange.status, each.wrong)
        for each in classified()
        if each.wrong
    ]
    return "\n\n".join(
        (
            table(("format", "operation", "requests by provider", "requests"), rows),
            "Not as recorded, and why (the status is what the provider itself answered):",
            table(("exchange", "status", "what we say"), refused),
        )
    )


def _short(identifier: str) -> str:
    source, _, path = identifier.partition("/")
    return f"{source}/…/{path.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The usage of one answer: as recorded, as read from the whole body, and from random chunks."""

    exchange: Exchange
    api: str
    expected: Totals | None
    whole: Totals | None
    chunked: Totals | None


@cache
def settled() -> tuple[Settled, ...]:
    """Every answer that somebody is charged for."""
    return tuple(
        _settled(each.exchange, each.request)
        for each in classified()
        if each.request is not None and each.request.operation != CONTROL
    )


def _settled(each: Exchange, request: AIRequest) -> Settled:
    found: list[Totals | None] = []
    for chunks in (None, randomly_chunked(each.answer, each.id)):
        usage = each.seen(request, chunks).usage
        found.append(None if usage is None else (usage.input_tokens, usage.output_tokens))
    expected, whole, chunked = (_filled(each, request) for each in (totals(each), *found))
    return Settled(exchange=each, api=request.api, expected=expected, whole=whole, chunked=chunked)


def _filled(found: Totals | None, request: AIRequest) -> Totals | None:
    """Where nothing is generated, a missing output is none."""
    if found is None or found[1] is not None or request.operation not in ("embeddings", "rerank"):
        return found
    return found[0], 0


def usage() -> str:
    """By format: answers with usage, and how many were read as recorded."""
    rows: list[tuple[str | int, ...]] = []
    by_api: defaultdict[str, list[Settled]] = defaultdict(list)
    for each in settled():
        by_api[each.api].append(each)
    for api, found in sorted(by_api.items()):
        reported = [each for each in found if each.expected is not None]
        rows.append(
            (
                code(api),
                len(found),
                len(reported),
                sum(each.whole == each.expected for each in reported),
                sum(each.chunked == each.expected for each in reported),
            )
        )
    rows.append(("**all**", *(sum(int(row[place]) for row in rows) for place in range(1, 5))))
    return table(("format", "answers", "with usage", "equal, whole", "equal, in random chunks"), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One request whose input somebody counted: the estimate, and what was reported."""

    exchange: Exchange
    request: AIRequest
    kind: str  # text, tools, images, schema
    estimated: int
    reported: int
    exact: bool

    @property
    def error(self) -> int:
        """Estimate less report, in tokens."""
        return self.estimated - self.reported


@cache
def counted() -> tuple[Counted, ...]:
    """Every request with a reported input that is a text we were shown."""
    answers = {each.exchange.id: each for each in settled()}
    found: list[Counted] = []
    for each in classified():
        answer = answers.get(each.exchange.id)
        request = each.request
        if request is None or answer is None or answer.expected is None or each.wrong:
            continue
        reported = answer.expected[0]
        if not reported or request.has_state or not each.tokens.input:
            continue
        kind = _kind(each.exchange, request)
        found.append(
            Counted(
                exchange=each.exchange,
                request=request,
                kind=kind,
                estimated=each.tokens.input,
                reported=reported,
                exact=each.tokens.exact,
            )
        )
    return tuple(found)


def _kind(each: Exchange, request: AIRequest) -> str:
    if set(request.modalities) - {"text"}:
        return "images"
    if request.tools or b'"tool_calls"' in each.body or b'"tool_use"' in each.body:
        return "tools"
    return "schema" if b'"json_schema"' in each.body else "text"


# The first that is part of the normalised model's name decides.
_FAMILIES = (
    ("gpt-oss", "gpt-oss"),
    ("gpt-", "OpenAI"),
    ("text-embedding", "OpenAI"),
    ("davinci", "OpenAI"),
    ("claude", "Claude"),
    ("gemini", "Gemini"),
    ("nova", "Nova"),
    ("titan", "Titan"),
    ("llama", "Llama"),
    ("mistral", "Mistral"),
    ("mixtral", "Mistral"),
    ("command", "Cohere"),
    ("embed-", "Cohere"),
    ("rerank", "Cohere"),
    ("deepseek", "DeepSeek"),
    ("palmyra", "Palmyra"),
    ("qwen", "Qwen"),
)
_O_SERIES = ("o1", "o3", "o4")


def family(model: str) -> str:
    """A model's family in a word for the report."""
    name = normalised(model)
    if name.startswith(_O_SERIES):
        return "OpenAI"
    return next((family for part, family in _FAMILIES if part in name), "others")


def is_plain_openai(each: Counted) -> bool:
    """Text for a model of OpenAI's own vocabularies, on OpenAI's or Azure's own servers."""
    own = each.exchange.provider in ("openai", "azure")
    return each.kind == "text" and own and family(each.request.model) == "OpenAI"


def counting() -> str:
    """The distribution of errors by family and kind of input."""
    groups: defaultdict[tuple[str, str], list[Counted]] = defaultdict(list)
    for each in counted():
        groups[family(each.request.model), each.kind].append(each)
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [(name, kind, *_distribution(found)) for (name, kind), found in order]
    header = (
        "family",
        "input",
        "requests",
        "exact",
        "within 1",
        "median error",
        "median |error|",
        "95 % below",
    )
    return table(header, rows)


def _distribution(found: list[Counted]) -> tuple[object, ...]:
    shares = sorted(abs(each.error) / each.reported for each in found)
    return (
        len(found),
        _percent(each.error == 0 for each in found),
        _percent(abs(each.error) <= 1 for each in found),
        f"{median(each.error / each.reported for each in found):+.1%}",
        f"{median(shares):.1%}",
        f"{shares[min(len(shares) - 1, int(0.95 * len(shares)))]:.0%}",
    )


def _percent(hits: Iterable[bool]) -> str:
    found = list(hits)
    return f"{sum(found) / len(found):.0%}"
