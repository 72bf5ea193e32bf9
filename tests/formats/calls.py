"""What every test of a wire format does: claim a request line, read its body, read an answer."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from extproc.formats import FORMATS
from extproc.formats.base import Call, ParsedRequest
from extproc.formats.classify import claim
from extproc.formats.providers import Provider
from extproc.model import AIRequest, Observation, RequestHead

JSON_ANSWER = {"content-type": "application/json"}
SSE_ANSWER = {"content-type": "text/event-stream; charset=utf-8"}


def head(
    path: str,
    *,
    method: str = "POST",
    host: str = "gateway.example:10000",
    headers: Mapping[str, str] | None = None,
) -> RequestHead:
    return RequestHead(method=method, host=host, path=path, headers=dict(headers or {}))


def claimed(
    path: str,
    *,
    method: str = "POST",
    host: str = "gateway.example:10000",
    headers: Mapping[str, str] | None = None,
    providers: tuple[Provider, ...] = (),
) -> Call | None:
    """The call that a request line is, as the product finds it."""
    return claim(head(path, method=method, host=host, headers=headers), providers)


def parsed(path: str, body: dict[str, Any], *, host: str = "gateway.example:10000") -> ParsedRequest:
    """The body as the format of its path reads it."""
    call = claimed(path, host=host)
    assert call is not None, path
    return FORMATS[call.api].parse_request(body, call)


def observed(
    api: str,
    *chunks: bytes,
    headers: Mapping[str, str] = JSON_ANSWER,
    model: str = "",
    operation: str = "chat",
) -> Observation:
    """What the reader of an answer saw of these chunks; it must not mind being told of the end twice."""
    request = AIRequest(api=api, provider=FORMATS[api].provider, operation=operation, model=model)
    reader = FORMATS[api].answer_reader(request, headers)
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    reader.feed(b"late")
    reader.finish()
    return reader.observation()


def split_everywhere(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The data cut in two at every byte."""
    return ((data[:place], data[place:]) for place in range(len(data) + 1))


def randomly_chunked(data: bytes, seed: str) -> list[bytes]:
    """The data in chunks of random size, the same for the same seed."""
    rng = random.Random(seed)
    chunks: list[bytes] = []
    place = 0
    while place < len(data):
        size = rng.choice((1, 2, 3, 17, 200, 4096))
        chunks.append(data[place : place + size])
        place += size
    return chunks
