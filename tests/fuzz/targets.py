"""One target for each parser: a function of arbitrary bytes that fails where a promise is broken.

Hypothesis runs them in the suite, atheris for as long as one likes: `python -m tests.fuzz TARGET`.
"""

import email.parser
import email.policy
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.aws.event_stream import CONTENT_TYPE as EVENT_STREAM
from extproc.formats.base import BodyKind, Call
from extproc.formats.body import answer_decoder, decode_body
from extproc.formats.classify import claim
from extproc.formats.fields import MAX_MODELS, MAX_TOOLS
from extproc.formats.inflate import CODINGS
from extproc.formats.multipart import FilePart, parse_form
from extproc.formats.sse import EventFilter, SSEEvent, SSEParser
from extproc.formats.strict_json import compact_json, parse_json
from extproc.model import AIRequest, Observation, RequestHead
from tests.formats import frames
from tests.fuzz.drawn import CANARY, Drawn
from tests.fuzz.lines import FILE, LINES

FIXTURES = Path(__file__).parent.parent / "fixtures"
MAX_BYTES = 1 << 20
FORM = "multipart/form-data; boundary=b"

Target = Callable[[bytes], None]


def refusal(read: Callable[[], Any]) -> Any:
    """What `read` returns; None where it refuses, in words that tell nothing of the request."""
    try:
        return read()
    except RequestRefused as refused:
        _check_refusal(refused)
        return None


def _check_refusal(refused: RequestRefused) -> None:
    message = refused.message
    assert 400 <= refused.status < 500
    assert refused.code
    assert CANARY.lower() not in message.lower(), message
    assert message.isascii(), message
    assert len(message) < 500, message


def strict_json(data: bytes) -> None:
    """What is accepted means the same to everybody: writing it down again changes nothing."""
    value = refusal(lambda: parse_json(data))
    if value is not None:
        assert value == json.loads(data)
        assert parse_json(compact_json(value).encode()) == value


def body(data: bytes, coding: str) -> None:
    """Bounded, and the same whole and in pieces."""
    decoded = refusal(lambda: decode_body(data, {"content-encoding": coding}, max_body_bytes=MAX_BYTES))
    decoder = answer_decoder(coding)
    assert decoder is not None
    size = 1 + len(data) % 7
    pieces = b"".join(decoder.feed(data[at : at + size]) for at in range(0, len(data), size))
    if decoded is not None:
        assert len(decoded) <= MAX_BYTES
        assert pieces == decoded
        assert not decoder.is_broken


def multipart(data: bytes) -> None:
    """A form is what another parser takes it for, too."""
    head, newline, content = data.partition(b"\n")
    content_type = head.decode("latin-1") if newline and head.startswith(b"multipart") else FORM
    form = refusal(lambda: parse_form(content, content_type))
    if not form:
        return
    header = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(header + content)
    assert message.is_multipart()
    parts: list[Any] = message.get_payload()  # type: ignore[assignment]  # its stubs know one part only
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert set(names) == form.keys()
    for name, part in zip(names, parts, strict=True):
        value = form[name][0] if isinstance(form[name], list) else form[name]
        assert isinstance(value, FilePart) == (part.get_filename() is not None)


def sse(data: bytes) -> None:
    """Chunks do not matter, and a filter that drops nothing changes nothing."""
    size = 1 + (data[0] if data else 0) % 11 + len(data) // 50
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    for bound in (16, MAX_BYTES):
        whole, pieces = _events([data], bound), _events(chunks, bound)
        assert whole == pieces
        assert all(len(event.data) <= bound for event in whole)
        events = EventFilter(lambda _: False, max_event_bytes=bound, objects_only=True)
        assert b"".join(map(events.feed, chunks)) + events.flush() == data


def _events(chunks: list[bytes], bound: int) -> list[SSEEvent]:
    parser = SSEParser(max_event_bytes=bound)
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


_METHODS = ("POST", "GET", "DELETE", "OPTIONS", "PUT", "post")
_HEADERS = ("anthropic-version", "x-http-method-override", "access-control-request-method", "content-type")


def classify(data: bytes) -> None:
    """A path that is somebody's is no other path, decoded once more or resolved."""
    drawn = Drawn(data)
    host, path, _ = LINES[drawn.number(len(LINES))]
    method = _METHODS[drawn.number(len(_METHODS))]
    headers = {_HEADERS[drawn.number(len(_HEADERS))]: drawn.some().decode("latin-1")}
    cut, inserted = drawn.number(len(path) + 1), drawn.rest().decode("latin-1")
    raw = path[:cut] + inserted + path[cut + drawn.number(3) :]
    head = RequestHead(method=method, host=host, path=raw, headers=headers)
    call = refusal(lambda: claim(head))
    if call is None:
        return
    assert call.api in FORMATS
    parts = head.path_only.split("/")[1:]
    for part in parts[:-1] if parts[-1] == "" else parts:
        once = unquote(part)
        assert once == unquote(once)
        assert once not in ("", ".", "..")
        assert not set(once) & set("\\;#\0\r\n")
        assert once.isprintable() or not once.isascii()


@cache
def calls() -> tuple[tuple[Call, dict[str, Any]], ...]:
    """Every call of `LINES` with its body."""
    found = []
    for host, path, seed in LINES:
        headers = {"content-type": FORM} if FILE in seed.values() else {}
        call = claim(RequestHead(method="POST", host=host, path=path, headers=headers))
        assert call is not None, path
        assert (call.body is BodyKind.FORM) is bool(headers), path
        found.append((call, seed))
    return tuple(found)


def as_form(seed: Mapping[str, Any], content: bytes) -> dict[str, Any]:
    """Such a form as the parser would hand over."""
    upload = FilePart(filename="f", content_type="", content=content)
    return {
        name: upload if value == FILE else value if isinstance(value, str) else json.dumps(value)
        for name, value in seed.items()
    }


def requests(data: bytes) -> None:
    """Every format reads any JSON, or refuses it; what it hands over is what policies may rely on."""
    drawn = Drawn(data)
    call, seed = calls()[drawn.number(len(calls()))]
    content = drawn.some()
    changed = drawn.changed(seed)
    given = changed if isinstance(changed, dict) else {"model": changed}
    if call.body is BodyKind.FORM:
        given = as_form(given, content)
    elif refusal(lambda: parse_json(compact_json(given).encode())) is None:
        return
    wire_format = FORMATS[call.api]
    parsed = refusal(lambda: wire_format.parse_request(given, call))
    if parsed is not None:
        check_request(parsed.request)
        refusal(lambda: wire_format.ask_for_usage(given, call))


def check_request(request: AIRequest) -> None:
    """What every part above the formats takes for granted."""
    names = (request.model, *request.models)
    assert all(name == name.lower() and name == name.strip() for name in names), names
    assert len(request.models) <= MAX_MODELS
    assert not request.model or request.model in request.models
    assert len(request.tools) <= MAX_TOOLS
    assert all(isinstance(tool, str) for tool in request.tools)
    assert request.choices >= 1
    assert request.message_count >= 0
    assert request.max_output_tokens is None or request.max_output_tokens >= 0
    assert request.modalities == tuple(sorted(request.modalities))
    assert isinstance(request.stream, bool)


_TYPES = (
    *("application/json", "text/event-stream", "application/x-ndjson", EVENT_STREAM, "text/plain"),
    *("audio/mpeg", "", "text/html"),
)


@cache
def _seeds() -> tuple[Any, ...]:
    """Everything that any recorded answer says: whole bodies and single events."""
    found: list[Any] = []
    for path in sorted(FIXTURES.rglob("*")):
        if path.suffix in (".json", ".sse", ".ndjson") and "request" not in path.name:
            text = path.read_text()
            for line in [text] if path.suffix == ".json" else text.splitlines():
                said = line.removeprefix("data:").strip()
                if said.startswith("{"):
                    found.append(json.loads(said))
    return tuple(found)


def answers(data: bytes) -> None:
    """No reader raises on anything, and the chunks it comes in do not matter."""
    drawn = Drawn(data)
    name = sorted(FORMATS)[drawn.number(len(FORMATS))]
    kind = _TYPES[drawn.number(len(_TYPES))]
    size = 1 + drawn.number(40)
    if drawn.number(4) == 0:
        said = drawn.rest()
    else:
        bodies = [drawn.changed(_seeds()[drawn.number(len(_seeds()))])]
        said = b"".join(_framed(kind, each) for each in (*bodies, *bodies))
    whole = observe(name, kind, [said])
    assert observe(name, kind, [said[at : at + size] for at in range(0, len(said), size)]) == whole
    check_observation(whole)


def _framed(kind: str, said: Any) -> bytes:
    text = json.dumps(said).encode()
    if kind == "text/event-stream":
        event = str(said.get("type", "")) if isinstance(said, dict) else ""
        # The name comes from elsewhere than the data, so it may be anything.
        return b"event: " + event.encode(errors="replace").replace(b"\n", b"") + b"\ndata: " + text + b"\n\n"
    if kind == EVENT_STREAM:
        return frames.event("metadata", said) + frames.chunk(said)
    return text + b"\n" if kind == "application/x-ndjson" else text


def observe(name: str, kind: str, chunks: list[bytes]) -> Observation:
    """What a format's reader makes of an answer of this content type."""
    asked = AIRequest(api=name, provider=FORMATS[name].provider, operation="chat")
    reader = FORMATS[name].answer_reader(asked, {"content-type": kind})
    for chunk in chunks:
        reader.feed(chunk)
        assert reader.pending_bytes(is_last=False) >= 0
    reader.finish()
    reader.finish()
    return reader.observation()


def check_observation(seen: Observation) -> None:
    """What settlement takes for granted."""
    seen.output_text.encode()
    for word in (seen.error, seen.model, seen.response_id, *seen.finish_reasons):
        assert len(word) <= 128
        assert not word or (word.isascii() and word.isprintable())
    if seen.usage is not None:
        counts = (getattr(seen.usage, name) for name in seen.usage.__dataclass_fields__)
        assert all(count is None or (type(count) is int and count >= 0) for count in counts)


TARGETS: Mapping[str, Target] = {
    "strict_json": strict_json,
    "multipart": multipart,
    "sse": sse,
    "classify": classify,
    "requests": requests,
    "answers": answers,
    **{f"body_{coding}": partial(body, coding=coding) for coding in sorted(CODINGS)},
}
