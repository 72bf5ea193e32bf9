"""The demo provider's paths: who may call, what goes wrong on request, and the way to an answer."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo import (
    anthropic_messages,
    bedrock_converse,
    cohere_v2,
    faults,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
)
from demo.answers import CUT, Answer, Part
from demo.asked import Asked, Refused
from demo.books import Books, Entry
from demo.dialect import Catalogue, Dialect
from demo.faults import Faults
from demo.generation import DEFAULT_TOKENS, generate
from extproc.measure.tokens import Tokenizer

# Longer prompts are counted beside the event loop.
_INLINE_BYTES = 64_000
_MOST_TOKENS = 1_000_000
# A JSON answer is written in so many pieces where it is asked to be slow.
_SLOW_PIECES = 8

# Where each dialect answers; what a path names is read as if the body said it.
_DIALECTS: tuple[tuple[str, Dialect], ...] = (
    ("/v1/chat/completions", openai_chat),
    ("/v1/completions", openai_completions),
    ("/v1/responses", openai_responses),
    ("/v1/embeddings", openai_embeddings),
    ("/v1/messages", anthropic_messages),
    ("/v1beta/models/{model}:{method}", gemini),
    ("/v1/models/{model}:{method}", gemini),
    # A model's ARN has slashes.
    ("/model/{model:path}/{operation}", bedrock_converse),
    ("/api/chat", ollama),
    ("/v2/chat", cohere_v2),
)

Reader = Callable[["Call", Mapping[str, Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request on its way to an answer."""

    dialect: Dialect
    entry: Entry
    headers: Mapping[str, str]
    body: bytes
    faults: Faults
    line: Mapping[str, str]  # what path and query name

    def plain(self, status: int, content: Any, *, extra: Mapping[str, str] | None = None) -> Answer:
        """A JSON answer that generates nothing."""
        return self.answer(status, _json_parts(json.dumps(content).encode()), extra=extra)

    def answer(
        self,
        status: int,
        parts: Sequence[Part] | Iterator[Part],
        *,
        content_type: str = "application/json",
        extra: Mapping[str, str] | None = None,
    ) -> Answer:
        """An answer with this call's headers, pace and faults."""
        headers = {"content-type": content_type, **self.dialect.headers(self.entry.id), **(extra or {})}
        is_stream = not isinstance(parts, Sequence)
        interval_ms = _number(self.headers, "x-demo-interval-ms", 0) if is_stream else 0
        if isinstance(parts, Sequence) and not self.faults.gzip:
            # What a cut leaves out was still announced.
            headers["content-length"] = str(sum(len(part.data) for part in parts))
        return Answer(
            entry=self.entry,
            status=status,
            headers=headers,
            parts=self._spoiled(parts, is_array=content_type.startswith("application/json")),
            hang_s=self.faults.hang,
            pace_s=(interval_ms + self.faults.slow) / 1000,
            is_compressed=self.faults.gzip,
        )

    def _spoiled(self, parts: Sequence[Part] | Iterator[Part], *, is_array: bool) -> Iterator[Part]:
        if not isinstance(parts, Sequence):
            spoiled = faults.spoil(parts, self.faults, self.dialect.error_event(self.entry.id))
            return gemini.as_array(spoiled) if is_array else spoiled
        return iter(parts) if self.faults.after is None else iter((*parts[: len(parts) // 2], CUT))


class Provider:
    """The server's state: a tokenizer, a key and the books."""

    def __init__(self, *, tokenizer: Tokenizer, key: str) -> None:
        self._tokenizer = tokenizer
        self._key = key
        self._books = Books(own_key=key)

    def app(self, lifespan: Callable[[Starlette], Any] | None = None) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/books", self._show_books, methods=["GET"]),
                Route("/books", self._empty_books, methods=["DELETE"]),
                *(Route(path, self._spoken(dialect), methods=["POST"]) for path, dialect in _DIALECTS),
                Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{name}", self._models),
            ],
            lifespan=lifespan,
        )

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _show_books(self, _request: Request) -> Response:
        return JSONResponse(self._books.as_json())

    async def _empty_books(self, _request: Request) -> Response:
        self._books.empty()
        return Response(status_code=204)

    def _spoken(self, dialect: Dialect) -> Callable[[Request], Awaitable[Answer]]:
        async def answer(request: Request) -> Answer:
            return await self._serve(request, dialect, self._generate)

        return answer

    async def _count_tokens(self, request: Request) -> Answer:
        async def count(call: Call, body: Mapping[str, Any]) -> Answer:
            anthropic_messages.check_version(call.headers)
            prompt, model = anthropic_messages.prompt(body), str(body.get("model", ""))
            asked = Asked(model=model, prompt=prompt, stream=False)
            return call.plain(200, {"input_tokens": await self._input_tokens(call, asked)})

        return await self._serve(request, anthropic_messages, count)

    async def _models(self, request: Request) -> Answer:
        async def answer(call: Call, _body: Mapping[str, Any]) -> Answer:
            name = call.line.get("name")
            if name is None:
                return call.plain(200, catalogue.models())
            if name not in catalogue.MODELS:
                raise Refused(404, f"The model '{name}' does not exist.")
            return call.plain(200, catalogue.model(name))

        is_anthropic = "anthropic-version" in request.headers
        catalogue: Catalogue = anthropic_messages if is_anthropic else openai_chat
        return await self._serve(request, catalogue, answer)

    async def _serve(self, request: Request, dialect: Dialect, reader: Reader) -> Answer:
        """What every call has in common: books, key, faults, and errors in the caller's dialect."""
        body = await request.body()
        headers = dict(request.headers)
        entry = self._books.open(
            request_id=dialect.request_id(),
            api=dialect.NAME,
            path=request.url.path,
            query_names=tuple(request.query_params),
            headers=headers,
            body=body,
        )
        line = _line(request)
        call = Call(dialect=dialect, entry=entry, headers=headers, body=body, faults=Faults(), line=line)
        try:
            self._check_key(dialect, headers)
            call = replace(call, faults=faults.parse(headers.get("x-demo-fault", "")))
            _fail_if_asked(call.faults)
            return await reader(call, _parsed(body, headers) if request.method == "POST" else {})
        except Refused as refused:
            error = dialect.error(refused.status, refused.message, param=refused.param, request_id=entry.id)
            extra = _retry(refused.status, call.faults) | dialect.error_headers(refused.status)
            return call.plain(refused.status, error, extra=extra)

    def _check_key(self, dialect: Dialect, headers: Mapping[str, str]) -> None:
        presented = dialect.credential(headers)
        if not hmac.compare_digest(presented.encode(), self._key.encode()):
            raise Refused(
                401, "Incorrect API key provided." if presented else "You didn't provide an API key."
            )

    async def _generate(self, call: Call, body: Mapping[str, Any]) -> Answer:
        asked = call.dialect.read({**body, **call.line}, call.headers)
        wanted = _number(call.headers, "x-demo-output-tokens", DEFAULT_TOKENS)
        input_tokens = await self._input_tokens(call, asked)
        choices = generate(asked, call.body, wanted)
        call.entry.begin(model=asked.model, stream=asked.stream, input_tokens=input_tokens)
        tokens = sum(choice.tokens for choice in choices)
        if asked.stream:
            parts = call.dialect.events(asked, choices, input_tokens, call.faults.usage_mode)
            if call.faults.garbage:
                broken = call.dialect.garbage() + b"\n"
                if asked.stream_type.startswith("text/event-stream"):
                    broken = b"data: " + broken + b"\n"
                parts = iter((Part(data=broken, tokens=tokens, chunks=1),))
            return call.answer(200, parts, content_type=asked.stream_type)
        if call.faults.error_after is not None:
            raise Refused(500, "The server had an error while processing your request.")
        content = call.dialect.whole(asked, choices, input_tokens, call.faults.usage_mode)
        data = call.dialect.garbage() if call.faults.garbage else json.dumps(content).encode()
        # It is generated whether or not the client stays for it.
        call.entry.add(tokens, 0)
        return call.answer(200, _json_parts(data))

    async def _input_tokens(self, call: Call, asked: Asked) -> int:
        def count() -> int:
            found = self._tokenizer.estimate(
                asked.prompt,
                provider=call.dialect.PROVIDER,
                model=asked.model,
                declared_max_output=asked.ceiling,
            )
            return found.input

        return count() if len(call.body) <= _INLINE_BYTES else await asyncio.to_thread(count)


def _line(request: Request) -> dict[str, str]:
    """What the path names, and the one word of the query that changes such a call's answer."""
    named = {name: str(value) for name, value in request.path_params.items()}
    alt = request.query_params.get("alt")
    return named | {"alt": alt} if named and alt else named


def _fail_if_asked(asked_faults: Faults) -> None:
    if asked_faults.status is not None:
        raise Refused(asked_faults.status, "This error was asked for by x-demo-fault.")


def _parsed(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    encoding = headers.get("content-encoding", "identity")
    if encoding not in {"identity", "gzip"}:
        raise Refused(415, "Unsupported content encoding.")
    try:
        value = json.loads(gzip.decompress(body) if encoding == "gzip" else body)
    except (ValueError, RecursionError, OSError, EOFError, zlib.error):
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise Refused(400, "The body of your request must be a JSON object.")
    return value


def _retry(status: int, asked_faults: Faults) -> dict[str, str]:
    after = asked_faults.retry_after
    return (
        {"retry-after": str(after), "retry-after-ms": str(after * 1000)} if status in {429, 503, 529} else {}
    )


def _number(headers: Mapping[str, str], name: str, default: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) > _MOST_TOKENS:
        raise Refused(400, f"{name} must be a whole number of at most {_MOST_TOKENS}.")
    return int(text)


def _json_parts(data: bytes) -> tuple[Part, ...]:
    step = max(1, -(-len(data) // _SLOW_PIECES))
    return tuple(Part(data=data[start : start + step]) for start in range(0, len(data), step))
