"""The recorded exchanges, and what the formats make of one."""

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from extproc.formats import FORMATS
from extproc.formats.base import Call, ParsedRequest
from extproc.formats.body import answer_decoder
from extproc.formats.strict_json import parse_json
from extproc.model import Observation
from tests.formats.calls import claimed, observed, randomly_chunked

CORPUS = Path(__file__).parent.parent.parent.parent / "shared" / "corpus"
MISSING = "the recorded exchanges of ../shared/corpus are not on this machine"

Exchange = dict[str, Any]


@cache
def exchanges() -> tuple[Exchange, ...]:
    return tuple(
        json.loads(line)
        for path in sorted(CORPUS.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )


def call_of(each: Exchange) -> Call:
    """The call that the recorded request line is, on the host it was sent to."""
    url = urlsplit(each["url"])
    path = f"{url.path}?{url.query}" if url.query else url.path
    call = claimed(path, method=each["method"], host=url.netloc, headers=each["request_headers"])
    assert call is not None, each["id"]
    return call


def request_of(each: Exchange) -> ParsedRequest:
    call = call_of(each)
    return FORMATS[call.api].parse_request(parse_json(base64.b64decode(each["request_body_b64"])), call)


def observations(api: str, operation: str, each: Exchange) -> tuple[Observation, Observation]:
    """The answer observed whole, and in pieces of random size."""
    data, headers = base64.b64decode(each["response_body_b64"]), each["response_headers"]
    seen = [
        _observed(api, operation, pieces, headers) for pieces in ([data], randomly_chunked(data, each["id"]))
    ]
    return seen[0], seen[1]


def _observed(api: str, operation: str, pieces: list[bytes], headers: dict[str, str]) -> Observation:
    decoder = answer_decoder(headers.get("content-encoding", ""))
    assert decoder is not None
    decoded = [decoder.feed(piece) for piece in pieces]
    assert not decoder.is_broken
    return observed(api, *decoded, headers=headers, operation=operation)
