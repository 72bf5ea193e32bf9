"""A thousand mixed requests of a small company through the real Envoy: what was asked, and what clients saw.

Five teams use AI undisturbed, each in its own way; what they use is the same in every run, whoever is
first. `drill` meets every fault of the demo provider, and leaves early; what it uses differs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product, zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anthropic
import httpx2 as httpx
import openai
from google import genai
from google.genai import errors, types

from tests.e2e.agreement import Answered
from tests.e2e.ledgers import TOKEN
from tests.e2e.otlp import OtlpReceiver
from tests.e2e.stack import Stack

TEAMS = ("support", "search", "research", "platform", "batch", "drill")
LARGE, SMALL, DENIED = "gpt-4.1", "gpt-4o-mini", "o1-pro"
CLAUDE, GEMINI, NOVA = "claude-sonnet-4-5", "gemini-2.5-flash", "us.amazon.nova-micro-v1:0"
LLAMA, COMMAND, EMBEDDING = "llama3.2", "command-r-08-2024", "text-embedding-3-small"
OF_LARGE = 20  # requests a year; the others go to the small model
OF_BATCH = 30  # requests a day
CLAMPED = 400  # tokens, all choices together
UNITS = {
    "all-requests": "requests",
    "all-tokens": "tokens",
    "all-input": "inputTokens",
    "all-output": "outputTokens",
    "all-cost": "costUsd",
}
AT_ONCE = 16
DECISION_ID = "x-ai-policy-decision-id"
NUMBER = "x-demo-number"  # by which the provider's books know a request that saw no answer
LEAVES_MIDWAY = "slow=100"  # and its client stays for the first piece
LEAVES = "hang=20"  # longer than its client stays
STAYS_S = 2.0  # long enough for the provider to be asked, also on a busy machine
FAULTS = (
    *("", "gzip", "usage=zero", "usage=null", "no-usage"),
    *("status=429", "status=500", "after=2", "error-after=2", LEAVES),
)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_HELLO = [{"role": "user", "content": "Say hello."}]
_PARTS = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
_BLOCKS = {"messages": [{"role": "user", "content": [{"text": "Say hello."}]}]}


def _key(team: str) -> str:
    return f"sk-{team}-team"


def _objects() -> Iterator[str]:
    for team in TEAMS:
        digest = hashlib.sha256(_key(team).encode()).hexdigest()
        yield (
            f"kind: ApiKey\nmetadata: {{name: {team}}}\n"
            f"spec: {{sha256: {digest}, user: {team}-app, team: {team}}}"
        )
    for name, unit in UNITS.items():
        yield (
            f"kind: UsageCap\nmetadata: {{name: {name}}}\n"
            f"spec: {{key: [identity.team], limit: {{{unit}: 4000000}}, period: year}}"
        )
    yield f"""kind: UsageCap
metadata: {{name: large-model}}
spec:
  match: request.model == "{LARGE}" && identity.team == "research"
  limit: {{requests: {OF_LARGE}}}
  period: year
  onExceed: {{useModel: {SMALL}}}"""
    yield f"""kind: RateLimit
metadata: {{name: batch-requests}}
spec:
  match: identity.team == "batch"
  key: [identity.team]
  limit: {{requests: 1, per: 24h, burst: {OF_BATCH}}}"""
    yield """kind: RateLimit
metadata: {name: trial}
spec: {key: [identity.team], limit: {tokens: 2000, per: 24h}, mode: shadow}"""
    yield """kind: ConcurrencyLimit
metadata: {name: in-flight}
spec: {key: [identity.team], max: 1000}"""
    yield f"""kind: RequestCap
metadata: {{name: answer-size}}
spec: {{match: request.operation != "embeddings", outputTokens: {CLAMPED}, onExceed: clamp}}"""
    yield f"""kind: AccessRule
metadata: {{name: not-offered}}
spec:
  effect: deny
  match: request.model == "{DENIED}"
  message: {DENIED} is not offered here; ask the platform team if you need it."""
    yield """kind: AccessRule
metadata: {name: no-streams-trial}
spec: {effect: deny, match: 'request.stream && identity.team == "support"', mode: shadow}"""
    yield """kind: Identity
metadata: {name: callers}
spec: {anonymous: deny, sources: [{apiKey: {}}]}"""
    yield f"""kind: Price
metadata: {{name: own-llama}}
spec: {{provider: ollama, models: [{LLAMA}], usdPerMillion: {{input: "0.05", output: "0.10"}}}}"""
    yield "kind: Defaults\nmetadata: {name: main}\nspec: {access: allow}"


POLICIES = "\n---\n".join(f"apiVersion: ai-policy/v1\n{each}" for each in _objects())


# --- ways to ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request: whose, by which way, of how many output tokens, with which fault."""

    team: str
    way: str
    model: str = SMALL
    output: int = 20
    fault: str = ""
    number: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What the demo provider is told."""
        told = {"x-demo-output-tokens": str(self.output), NUMBER: str(self.number)}
        return told | ({"x-demo-fault": self.fault} if self.fault else {})


class Clients:
    """One team's SDKs and its plain HTTP, pointed at the gateway; none tries again by itself."""

    def __init__(self, url: str, team: str) -> None:
        key = _key(team)
        # At the last event of a stream the SDK leaves, before its answer has ended; this one reads on.
        hooks = {"response": [httpx.Response.read]}
        patient = openai.DefaultHttpxClient(event_hooks=hooks)
        self.openai: Any = openai.OpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=patient
        )
        self.anthropic: Any = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
        self.google: Any = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))
        headers = {"authorization": f"Bearer {key}"} if team else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self.openai, self.anthropic, self.google, self.http):
            each.close()


Way = Callable[[Clients, Ask], Answered]


def _said(headers: Mapping[str, str], status: int, given: int | None, made: int | None) -> Answered:
    return Answered(decision_id=headers[DECISION_ID], status=status, input_tokens=given, output_tokens=made)


def _refused(answer: Any) -> Answered:
    """What an SDK's exception holds: the status, the id of its header and the one in its body."""
    return _told(answer.headers, answer.status_code, answer.text)


def _told(headers: Mapping[str, str], status: int, body: str) -> Answered:
    decision_id = headers[DECISION_ID]
    return Answered(
        decision_id=decision_id, status=status, body_ids=tuple(dict.fromkeys(_UUID.findall(body)))
    )


def _chat(clients: Clients, ask: Ask) -> Answered:
    raw = clients.openai.chat.completions.with_raw_response.create(
        model=ask.model, messages=_HELLO, max_tokens=ask.output * 2, extra_headers=ask.headers
    )
    usage = raw.parse().usage
    return _said(raw.headers, raw.status_code, usage.prompt_tokens, usage.completion_tokens)


def _chat_stream(clients: Clients, ask: Ask, options: Mapping[str, Any] | None = None) -> Answered:
    raw = clients.openai.chat.completions.with_raw_response.create(
        model=ask.model, messages=_HELLO, stream=True, extra_headers=ask.headers, extra_body=options
    )
    usage = [chunk.usage for chunk in raw.parse() if chunk.usage]
    given, made = (usage[-1].prompt_tokens, usage[-1].completion_tokens) if usage else (None, None)
    return _said(raw.headers, raw.status_code, given, made)


def _responses(clients: Clients, ask: Ask) -> Answered:
    raw = clients.openai.responses.with_raw_response.create(
        model=ask.model, input="Say hello.", extra_headers=ask.headers
    )
    usage = raw.parse().usage
    return _said(raw.headers, raw.status_code, usage.input_tokens, usage.output_tokens)


def _responses_stream(clients: Clients, ask: Ask) -> Answered:
    raw = clients.openai.responses.with_raw_response.create(
        model=ask.model, input="Say hello.", stream=True, extra_headers=ask.headers
    )
    (usage,) = [event.response.usage for event in raw.parse() if event.type == "response.completed"]
    return _said(raw.headers, raw.status_code, usage.input_tokens, usage.output_tokens)


def _embeddings(clients: Clients, ask: Ask) -> Answered:
    raw = clients.openai.embeddings.with_raw_response.create(
        model=ask.model, input=["one", "two"], extra_headers=ask.headers
    )
    return _said(raw.headers, raw.status_code, raw.parse().usage.prompt_tokens, None)


def _messages(clients: Clients, ask: Ask) -> Answered:
    raw = clients.anthropic.messages.with_raw_response.create(
        model=ask.model, max_tokens=ask.output * 2, messages=_HELLO, extra_headers=ask.headers
    )
    usage = raw.parse().usage
    return _said(raw.headers, raw.status_code, usage.input_tokens, usage.output_tokens)


def _messages_stream(clients: Clients, ask: Ask) -> Answered:
    with clients.anthropic.messages.stream(
        model=ask.model, max_tokens=ask.output * 2, messages=_HELLO, extra_headers=ask.headers
    ) as stream:
        usage = stream.get_final_message().usage
        return _said(
            stream.response.headers, stream.response.status_code, usage.input_tokens, usage.output_tokens
        )


def _gemini(clients: Clients, ask: Ask) -> Answered:
    said = clients.google.models.generate_content(model=ask.model, contents="Say hello.", config=_google(ask))
    usage = said.usage_metadata
    return _said(said.sdk_http_response.headers, 200, usage.prompt_token_count, usage.candidates_token_count)


def _gemini_stream(clients: Clients, ask: Ask) -> Answered:
    chunks = list(
        clients.google.models.generate_content_stream(
            model=ask.model, contents="Say hello.", config=_google(ask)
        )
    )
    usage = chunks[-1].usage_metadata
    return _said(
        chunks[-1].sdk_http_response.headers, 200, usage.prompt_token_count, usage.candidates_token_count
    )


def _google(ask: Ask) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers=ask.headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A call by plain HTTP: where, with what, and how its answer names what was used."""

    path: str
    body: Mapping[str, Any]
    usage: tuple[str, str] = ("", "")  # members of its JSON

    def __call__(self, clients: Clients, ask: Ask) -> Answered:
        """Read it to its end, if it has one; a client that leaves does so after a moment."""
        body = {"model": ask.model, **self.body} if "/model" not in self.path else dict(self.body)
        headers = ask.headers | {"anthropic-version": "2023-06-01"}
        timeout_s = STAYS_S if ask.fault == LEAVES else 60
        path = self.path.format(model=ask.model)
        seen = Answered(decision_id="", status=0)
        text = b""
        try:
            with clients.http.stream("POST", path, json=body, headers=headers, timeout=timeout_s) as answer:
                seen = replace(seen, decision_id=answer.headers[DECISION_ID], status=answer.status_code)
                for piece in answer.iter_bytes():
                    if ask.fault == LEAVES_MIDWAY:
                        return replace(seen, is_whole=False)
                    text += piece
        except httpx.TransportError:
            return replace(seen, is_whole=False)
        if answer.is_error:
            return _told(answer.headers, answer.status_code, text.decode())
        given, made = (_first(text, name) for name in self.usage)
        return replace(seen, input_tokens=given, output_tokens=made)


def _first(text: bytes, name: str) -> int | None:
    """What a member of that name says first, in JSON of any wrapping; Cohere's second one is not billed."""
    found = re.search(rb'"%s": ?([0-9]+)' % name.encode(), text) if name else None
    return int(found[1]) if found else None


_CHAT: dict[str, Any] = {"messages": _HELLO}
_STREAMED = _CHAT | {"stream": True}
_CLAUDE = _CHAT | {"max_tokens": 30}
_GEMINI = "/v1beta/models/{model}:"
_NOVA = "/model/{model}/"
_OPENAI_USAGE = ("prompt_tokens", "completion_tokens")
_OLLAMA_USAGE = ("prompt_eval_count", "eval_count")
_OTHER_USAGE = ("input_tokens", "output_tokens")
_AWS_USAGE = ("inputTokens", "outputTokens")
_INCLUDED = {"stream_options": {"include_usage": True}}

WAYS: Mapping[str, Way] = {
    "chat": _chat,
    "chat stream": _chat_stream,
    "chat stream with usage": partial(_chat_stream, options=_INCLUDED),
    "responses": _responses,
    "responses stream": _responses_stream,
    "embeddings": _embeddings,
    "messages": _messages,
    "messages stream": _messages_stream,
    "gemini": _gemini,
    "gemini stream": _gemini_stream,
    "converse": Raw(path=_NOVA + "converse", body=_BLOCKS, usage=_AWS_USAGE),
    "converse stream": Raw(path=_NOVA + "converse-stream", body=_BLOCKS, usage=_AWS_USAGE),
    "ollama": Raw(path="/api/chat", body=_CHAT | {"stream": False}, usage=_OLLAMA_USAGE),
    "ollama stream": Raw(path="/api/chat", body=_CHAT, usage=_OLLAMA_USAGE),
    "cohere": Raw(path="/v2/chat", body=_CHAT, usage=_OTHER_USAGE),
    "cohere stream": Raw(path="/v2/chat", body=_STREAMED, usage=_OTHER_USAGE),
    "raw chat": Raw(path="/v1/chat/completions", body=_CHAT),
    "raw chat of two": Raw(path="/v1/chat/completions", body=_CHAT | {"n": 2, "max_tokens": 30}),
    "raw chat stream": Raw(path="/v1/chat/completions", body=_STREAMED),
    "raw chat stream with usage": Raw(path="/v1/chat/completions", body=_STREAMED | _INCLUDED),
    "raw responses": Raw(path="/v1/responses", body={"input": "Say hello."}),
    "raw responses stream": Raw(path="/v1/responses", body={"input": "Say hello.", "stream": True}),
    "raw messages": Raw(path="/v1/messages", body=_CLAUDE),
    "raw messages stream": Raw(path="/v1/messages", body=_CLAUDE | {"stream": True}),
    "raw gemini": Raw(path=_GEMINI + "generateContent", body=_PARTS),
    "raw gemini stream": Raw(path=_GEMINI + "streamGenerateContent?alt=sse", body=_PARTS),
    "raw embeddings": Raw(path="/v1/embeddings", body={"input": ["one", "two"]}),
}
_DISTURBED = {
    "raw chat": SMALL,
    "raw chat of two": SMALL,
    "raw chat stream": SMALL,
    "raw chat stream with usage": SMALL,
    "raw responses": SMALL,
    "raw responses stream": SMALL,
    "raw messages": CLAUDE,
    "raw messages stream": CLAUDE,
    "raw gemini": GEMINI,
    "raw gemini stream": GEMINI,
    "converse": NOVA,
    "converse stream": NOVA,
    "raw embeddings": EMBEDDING,
}
NOBODY = ""


def _undisturbed() -> Iterator[list[Ask]]:
    for count, ask in (
        (114, Ask(team="support", way="chat")),
        (60, Ask(team="support", way="chat stream", output=30)),
        (60, Ask(team="support", way="chat stream with usage", output=40)),
        (90, Ask(team="search", way="embeddings", model=EMBEDDING)),
        (30, Ask(team="search", way="cohere", model=COMMAND, output=12)),
        (30, Ask(team="search", way="cohere stream", model=COMMAND, output=15)),
        (30, Ask(team="search", way="ollama", model=LLAMA, output=18)),
        (30, Ask(team="search", way="ollama stream", model=LLAMA, output=16)),
        (60, Ask(team="research", way="messages", model=CLAUDE, output=50)),
        (50, Ask(team="research", way="messages stream", model=CLAUDE, output=60)),
        (40, Ask(team="research", way="responses")),
        (40, Ask(team="research", way="responses stream", output=25)),
        (OF_LARGE + 10, Ask(team="research", way="chat", model=LARGE, output=35)),
        (20, Ask(team="research", way="chat", model=DENIED)),
        (35, Ask(team="platform", way="gemini", model=GEMINI, output=22)),
        (35, Ask(team="platform", way="gemini stream", model=GEMINI, output=24)),
        (30, Ask(team="platform", way="converse", model=NOVA, output=26)),
        (30, Ask(team="platform", way="converse stream", model=NOVA, output=28)),
        (OF_BATCH + 15, Ask(team="batch", way="chat", output=10)),
        (5, Ask(team=NOBODY, way="raw chat")),
    ):
        yield [ask] * count


def _disturbed() -> Iterator[Ask]:
    for (way, model), fault in product(_DISTURBED.items(), FAULTS):
        yield Ask(team="drill", way=way, model=model, output=25, fault=fault)
    for way, model in _DISTURBED.items():
        if "stream" in way:
            yield Ask(team="drill", way=way, model=model, output=25, fault=LEAVES_MIDWAY)


def asks() -> list[Ask]:
    """The thousand, dealt like cards so that everything happens at the same time."""
    dealt = chain.from_iterable(zip_longest(*_undisturbed(), list(_disturbed())))
    return [replace(ask, number=number) for number, ask in enumerate(filter(None, dealt))]


# --- the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A running stack that has answered everything, and what its clients saw, by their numbers."""

    stack: Stack
    receiver: OtlpReceiver
    asked: Sequence[Ask]
    answered: Sequence[Answered]


@contextmanager
def run(folder: Path) -> Iterator[Run]:
    """Start the product with a ledger and a receiver of its spans, ask the thousand, and stay up."""
    environment = {
        "EXTPROC_STATE": str(folder / "state"),
        "EXTPROC_ADMIN_TOKEN": TOKEN,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    with OtlpReceiver() as receiver:
        stack = Stack(
            folder,
            policies={"company.yaml": POLICIES},
            environment=environment,
            otlp_endpoint=receiver.endpoint,
        )
        with stack:
            asked = asks()
            yield Run(stack=stack, receiver=receiver, asked=asked, answered=ask_all(stack, asked))


def ask_all(stack: Stack, asked: Sequence[Ask]) -> list[Answered]:
    """Ask all of these, some at a time; what each client saw, in the same order."""
    with ExitStack() as open_clients, ThreadPoolExecutor(AT_ONCE) as threads:
        teams = {ask.team for ask in asked}
        clients = {
            team: open_clients.enter_context(Clients(stack.gateway_url, team)) for team in sorted(teams)
        }
        return list(threads.map(lambda ask: _ask(clients[ask.team], ask), asked))


def _ask(clients: Clients, ask: Ask) -> Answered:
    try:
        return WAYS[ask.way](clients, ask)
    except (openai.APIStatusError, anthropic.APIStatusError, errors.APIError) as error:
        return _refused(error.response)
