"""Canaries: words that stand where people's texts and secrets do, looked for everywhere they must not be.

Everything is asked once on each of two stacks; then every channel is read whole, byte for byte.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg
import pytest

from extproc.envoy_config import UsageMode
from tests.e2e import policies
from tests.e2e.otlp import OtlpReceiver
from tests.e2e.stack import Stack
from tests.e2e.test_requests import CLAUDE, OPENAI, wait_until
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

# In every canary; none of them is a word that anything else could write.
MARK = "kanarie7f3a"
# The gateway's own credential of the caller who is let in.
KEY = policies.key(0)


def canary(place: str) -> str:
    """What stands in this place."""
    return f"{MARK}-{place}"


DENIED = "o1-pro"
COUNTED = "gpt-4-counted"
NEVER_UNCOUNTED = f"""
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {{name: never-uncounted}}
spec: {{match: request.model == "{COUNTED}", limit: {{requests: 1000, per: 1m}}, onError: deny}}
"""
# Credentials that are none of this gateway's, wherever clients put theirs, and headers that hold secrets.
CARRIERS = {
    "authorization": f"Bearer {canary('bearer')}",
    "x-api-key": canary("x-api-key"),
    "api-key": canary("api-key"),
    "x-goog-api-key": canary("x-goog-api-key"),
    "proxy-authorization": f"Basic {canary('proxy')}",
    "cookie": f"session={canary('cookie')}",
    "x-amz-security-token": canary("amz-token"),
    "x-session-secret": canary("odd-header"),
}
OURS = {"authorization": f"Bearer {KEY}"}


# --- a provider that answers with canaries


@dataclass(slots=True)
class Provider:
    """What reached it; it answers with text, in a stream where it was asked for one, or with an error."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    holds: threading.Event = field(default_factory=threading.Event)  # one answer waits for its end
    may_answer: threading.Event = field(default_factory=threading.Event)


MESSAGE = {"role": "assistant", "content": canary("answer"), "refusal": canary("refusal")}
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
ANSWER = {"id": "c", "object": "chat.completion", "model": OPENAI, "usage": USAGE}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": OPENAI}
ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "whole": (
        200,
        "application/json",
        json.dumps(ANSWER | {"choices": [{"index": 0, "message": MESSAGE}]}).encode(),
    ),
    "stream": (
        200,
        "text/event-stream",
        b"data: %b\n\ndata: [DONE]\n\n"
        % json.dumps(CHUNK | {"choices": [{"index": 0, "delta": MESSAGE}], "usage": USAGE}).encode(),
    ),
    "error": (
        400,
        "application/json",
        json.dumps({"error": {"message": canary("error"), "type": "x"}}).encode(),
    ),
    "garbage": (200, "application/json", b'{"' + canary("garbage").encode() + b'": '),
    "cut": (200, "text/event-stream", b'data: {"choices": [{"delta": {"content": "' + canary("cut").encode()),
    "unread": (200, "text/html", f"<p>{canary('html')}</p>".encode()),
}


@contextmanager
def answering() -> Iterator[Provider]:
    state = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            state.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            kind = self.headers.get("x-answer", "whole")
            if kind == "held":
                state.holds.set()
                state.may_answer.wait(20)
            status, media_type, text = ANSWERS.get(kind, ANSWERS["whole"])
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(text)

        do_GET = do_POST  # noqa: N815  the name is the library's

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size + 2)[:-2])
            self.rfile.readline()
            return b"".join(pieces)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield state
    finally:
        state.may_answer.set()
        server.shutdown()
        server.server_close()


# --- what is asked


def chat(model: str = OPENAI, **more: Any) -> bytes:
    """A request with a canary wherever people write."""
    tool = {"name": "get_weather", "description": canary("tool-description"), "parameters": {}}
    image = {
        "type": "image_url",
        "image_url": {"url": f"https://x.example/{canary('url')}?sig={canary('sig')}"},
    }
    return json.dumps(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": canary("system")},
                {"role": "user", "content": [{"type": "text", "text": canary("prompt")}, image]},
            ],
            "tools": [{"type": "function", "function": tool}],
            **more,
        }
    ).encode()


def form(name: str) -> tuple[dict[str, str], bytes]:
    """A recording to write down, in a file whose name tells something."""
    parts = (
        f'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        f'--b\r\ncontent-disposition: form-data; name="{name}"; filename="{canary("file-name")}.wav"\r\n\r\n'
        f"{canary('file')}\r\n--b--\r\n"
    )
    return {"content-type": "multipart/form-data; boundary=b"}, parts.encode()


CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
Request = tuple[str, dict[str, str], bytes]


def requests() -> Iterator[Request]:
    """Path, headers and body of everything that is asked."""
    for kind in ANSWERS:
        yield CHAT, OURS | {"x-answer": kind}, chat(stream=kind in ("stream", "cut"))
    # With a credential of somebody else beside ours, or in its place, in each place.
    for name, value in CARRIERS.items():
        yield CHAT, {name: value}, chat()
        if name != "authorization":
            yield CHAT, OURS | {name: value}, chat()
    yield f"{CHAT}?key={canary('query-key')}", {}, chat()
    yield f"{CHAT}?api_key={canary('query-odd')}", OURS, chat()
    yield CHAT, OURS, chat(DENIED)
    yield CHAT, OURS, chat(COUNTED)
    # Bodies that cannot be read.
    yield CHAT, OURS, canary("no-json").encode()
    yield CHAT, OURS, b'{"model": "' + canary("cut-off").encode()
    yield CHAT, OURS, json.dumps({canary("field"): 1, "model": 5}).encode()
    yield CHAT, OURS, json.dumps({"model": OPENAI, "messages": canary("messages")}).encode()
    yield CHAT, OURS, json.dumps({"model": OPENAI, "messages": [{"role": canary("role")}]}).encode()
    twice = canary("twice")
    yield CHAT, OURS, f'{{"model": "{OPENAI}", "{twice}": 1, "{twice}": 2, "messages": []}}'.encode()
    yield CHAT, OURS, b'{"\xff' + canary("no-utf8").encode() + b'": 1}'
    # Compressed, well and badly.
    zipped = OURS | {"content-encoding": "gzip"}
    yield CHAT, zipped, gzip.compress(chat())
    yield CHAT, zipped, gzip.compress(canary("zipped").encode())
    yield CHAT, zipped, canary("not-zipped").encode()
    yield CHAT, OURS | {"content-encoding": canary("encoding")}, chat()
    # Too large, as it says itself.
    yield CHAT, OURS | {"content-length": "9000000"}, chat()
    for name in ("file", canary("part")):
        headers, body = form(name)
        yield "/v1/audio/transcriptions", OURS | headers, body
    yield (
        "/v1/audio/transcriptions",
        OURS | {"content-type": f"multipart/form-data; boundary={canary('b')}"},
        body,
    )
    # Other dialects.
    claude = {"model": CLAUDE, "max_tokens": 9, "system": canary("claude-system")}
    said = [{"role": "user", "content": canary("claude")}]
    yield "/v1/messages", {"x-api-key": KEY}, json.dumps(claude | {"messages": said}).encode()
    asked = json.dumps({"contents": [{"parts": [{"text": canary("gemini")}]}]}).encode()
    yield f"{GEMINI}?key={KEY}", {}, asked
    yield f"{GEMINI}?key={canary('gemini-key')}", {}, asked
    call = {"name": "search", "arguments": {"q": canary("argument")}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    yield "/mcp", OURS, json.dumps(message).encode()
    # What Envoy answers itself.
    yield f"/nothing?key={canary('not-ai')}", CARRIERS, chat()
    yield f"{CHAT};a?key={canary('two-readings')}", CARRIERS, chat()
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}
    yield f"/v1/realtime?model=gpt-realtime&key={canary('upgrade')}", CARRIERS | upgrade, b""
    yield f"/ai-policy/usage?key={canary('question')}", CARRIERS, b""
    yield f"/ai-policy/decisions/none?key={KEY}", {}, b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one caller was told."""

    status: int
    headers: str
    body: bytes


def send(stack: Stack, request: Request) -> Answer:
    path, headers, body = request
    connection = http.client.HTTPConnection("127.0.0.1", stack.gateway_port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body or None, headers)
        answer = connection.getresponse()
        return Answer(answer.status, str(answer.getheaders()), answer.read())
    except (OSError, http.client.HTTPException):
        # A refusal may close the connection while the body is still on its way, and a crash always does.
        return Answer(0, "", b"")
    finally:
        connection.close()


# --- where it is looked for


@dataclass(frozen=True, slots=True)
class Heard:
    """Everything that was said, by whom."""

    channels: Mapping[str, bytes]
    answers: tuple[Answer, ...]
    provider: Provider
    decisions: tuple[str, ...]


def sqlite_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def postgres_bytes(url: str) -> bytes:
    """Every column of every table, text and bytes."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT relid::regclass::text FROM pg_stat_user_tables").fetchall()
        rows = [connection.execute(f"SELECT * FROM {name}".encode()).fetchall() for (name,) in tables]
    values = (value for table in rows for row in table for value in row)
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


def redis_bytes(server: RedisServer) -> bytes:
    client = server.client()
    with contextlib.closing(client):
        found = [repr((key, client.dump(key))) for key in client.keys("*")]
    return "\n".join(found).encode()


def told(stack: Stack, paths: list[str]) -> bytes:
    """What the admin port says, one page after the other."""
    return b"\n".join(httpx.get(f"{stack.admin_url}{path}", timeout=30).content for path in paths)


@contextmanager
def ledger(kind: str) -> Iterator[str]:
    """Where the records go: the default file in the state folder, or a Postgres."""
    if kind == "sqlite":
        yield ""
        return
    with PostgresServer() as postgres, postgres.database() as url:
        yield url


STACKS: dict[str, tuple[UsageMode, str, signal.Signals]] = {
    "sqlite": ("stream", "1.38.3", signal.SIGSEGV),
    "postgres": ("native", "1.40.0", signal.SIGABRT),
}


@pytest.fixture(scope="module", params=STACKS)
def heard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Ask everything, break the store, end the sidecar in the middle of a request, and read every channel."""
    usage, version, signal_ = STACKS[request.param]
    folder = tmp_path_factory.mktemp(f"privacy-{request.param}")
    state = folder / "state"
    state.mkdir()
    with ExitStack() as running:
        provider = running.enter_context(answering())
        receiver = running.enter_context(OtlpReceiver())
        redis = running.enter_context(RedisServer("--rdbcompression", "no"))
        url = running.enter_context(ledger(request.param))
        environment = {
            "EXTPROC_STORE": redis.url,
            "EXTPROC_STATE": str(state),
            "PYTHONFAULTHANDLER": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BLRP_SCHEDULE_DELAY": "100",
            **({"EXTPROC_LEDGER": url} if url else {}),
        }
        stack = running.enter_context(
            Stack(
                folder,
                envoy=version,
                usage=usage,
                policies={**policies.FILES, "counted.yaml": NEVER_UNCOUNTED},
                environment=environment,
                otlp_endpoint=receiver.endpoint,
                provider_port=provider.port,
                edit=flush_soon,
            )
        )
        answers = [send(stack, each) for each in requests()]
        channels = {"redis": redis_bytes(redis)}
        answers += break_store(stack, redis)
        decisions = decided(stack)
        last = decisions[-1]
        # The portable Envoy traces nothing; the other one has a span of its own for it.
        tellers = 2 if usage == "native" else 1
        wait_until(lambda: len(services(receiver, last)) == tellers, "the last decision's spans")
        pages = ["/metrics", "/policies", "/decisions", "/usage?by=model,user", f"/decisions/{last}"]
        channels["admin"] = told(stack, [*pages, "/counters?policy=RateLimit/team-tokens&key=team-0"])
        answers.append(crash(stack, provider, signal_))
        channels |= {
            "spans": repr(receiver.spans()).encode(),
            "log records": repr(receiver.logs()).encode(),
            "sidecar's log": (folder / "sidecar.log").read_bytes(),
            "Envoy's log": (folder / "envoy.log").read_bytes(),
            "Envoy's figures": httpx.get(f"{stack.envoy_admin_url}/stats").content,
            "access log": (folder / "access.log").read_bytes(),
            "state": sqlite_bytes(state),
        }
        if url:
            channels["ledger"] = postgres_bytes(url)
    return Heard(channels, tuple(answers), provider, decisions)


def services(receiver: OtlpReceiver, decision_id: str) -> set[str]:
    """Who told of this decision in a span."""
    return {span.service for span in receiver.spans() if decision_id in repr(span.attributes)}


def flush_soon(bootstrap: str) -> str:
    """Envoy hands its spans on every five seconds; sooner here."""
    at_once = "tracing.opentelemetry.flush_interval_ms: 100, tracing.opentelemetry.min_flush_spans: 1"
    return f"{bootstrap}\nlayered_runtime: {{layers: [{{name: test, static_layer: {{{at_once}}}}}]}}\n"


def decided(stack: Stack) -> tuple[str, ...]:
    """Every decision in the access log, in order."""
    wait_until(lambda: len(stack.access_log(1)) >= len(list(requests())), "an entry for each request")
    found = (str(entry["decision_id"]) for entry in stack.access_log(1))
    return tuple(each for each in found if each not in ("None", "-"))


def break_store(stack: Stack, redis: RedisServer) -> list[Answer]:
    """Counters of another kind than anybody expects, then none at all."""
    with closing(redis.client()) as client:
        for key in client.keys("*"):
            client.delete(key)
            client.lpush(key, "x")
    broken = [send(stack, (CHAT, OURS, chat(COUNTED)))]
    redis.kill()
    return [*broken, send(stack, (CHAT, OURS, chat(COUNTED)))]


def crash(stack: Stack, provider: Provider, number: signal.Signals) -> Answer:
    """End the sidecar by a signal that has it dump where it was, while a request is under way."""
    answers: list[Answer] = []
    request = (CHAT, OURS | {"x-answer": "held"}, chat())
    caller = threading.Thread(target=lambda: answers.append(send(stack, request)))
    caller.start()
    assert provider.holds.wait(20)
    stack.kill_sidecar(number)
    provider.may_answer.set()
    caller.join()
    return answers[0]


# --- and is not


def test_no_text_and_no_credential_is_on_any_channel(heard: Heard) -> None:
    found = {name: sorted(canaries(said)) for name, said in heard.channels.items()}

    assert {name: words for name, words in found.items() if words} == {}


def canaries(said: bytes) -> set[str]:
    """Every canary in there, and the caller's key."""
    words = re.findall(rb"%b[\w-]*" % MARK.encode(), said)
    return {word.decode() for word in words} | ({KEY} if KEY.encode() in said else set())


def test_every_channel_did_speak_of_what_was_asked(heard: Heard) -> None:
    records = "ledger" if "ledger" in heard.channels else "state"
    silent = {
        name
        for name in ("spans", "sidecar's log", "access log", records)
        if not any(each.encode() in heard.channels[name] for each in heard.decisions)
    }

    assert silent == set()
    assert b"team-tokens" in heard.channels["redis"]
    assert b"ai_policy_denials_total" in heard.channels["admin"]
    assert b"ext_proc" in heard.channels["Envoy's figures"]
    assert b"Fatal Python error" in heard.channels["sidecar's log"], "the crash left its dump"


def test_the_callers_key_never_goes_upstream(heard: Heard) -> None:
    assert len(heard.provider.requests) > len(ANSWERS)
    for path, headers, _ in heard.provider.requests:
        assert KEY not in path
        assert KEY not in str(headers)


def test_people_get_their_answers_and_providers_their_prompts(heard: Heard) -> None:
    """What is kept from every record is not kept from those it is meant for."""
    assert canary("answer").encode() in heard.answers[0].body
    assert canary("prompt").encode() in heard.provider.requests[0][2]


def test_who_is_refused_is_not_told_what_they_sent(heard: Heard) -> None:
    by_provider = {canary(each) for each in ("answer", "refusal", "error", "garbage", "cut", "html")}
    echoed = {
        word
        for answer in heard.answers
        for word in canaries(answer.headers.encode() + answer.body) - by_provider
    }

    assert echoed == set()
    assert {answer.status for answer in heard.answers} >= {200, 400, 401, 403, 413, 415, 503}
