"""Callers who mean harm and processes that die, on the real Envoy: refused, or inspected like others."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx2 as httpx
import pytest

from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.server import SERVICE
from tests.e2e import policies
from tests.e2e.callers import Caller, call, only, settlements
from tests.e2e.stack import Stack, check_often
from tests.e2e.test_requests import HELLO, OPENAI, wait_until

PATH = "/v1/chat/completions"
DENIED = "o1-pro"
DECISION_ID = "x-ai-policy-decision-id"
PATIENCE_S = 2  # Envoy's with a sidecar that a test may break; ten in what we render
NOBODY = 0  # the connection was closed without an answer

# Our own Envoy normalises paths; the one that was already there does not.
BOTH = only("native-1.40.0", "stream-1.38.3")
OURS = only("native-1.40.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_refusal(self) -> bool:
        return self.status == NOBODY or self.status >= 400


def body_for(model: str, **fields: Any) -> bytes:
    return json.dumps({"model": model, "max_tokens": 20, "messages": HELLO} | fields).encode()


def request(
    *headers: str, body: bytes = b"", path: str = PATH, method: str = "POST", length: bool = True
) -> bytes:
    """A request as it goes over the wire; `headers` are whole lines."""
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", "connection: close", *headers]
    lines += [f"content-length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def bearer(key: str) -> str:
    return f"authorization: Bearer {key}"


def connect(stack: Stack) -> socket.socket:
    return socket.create_connection(("127.0.0.1", stack.gateway_port), timeout=60)


def reply_of(connection: socket.socket) -> Reply:
    """The next answer on this connection."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        body = answer.read()
    except (ConnectionError, http.client.HTTPException):
        return Reply(status=NOBODY, headers={}, body=b"")
    finally:
        answer.close()
    return Reply(
        status=answer.status,
        headers={name.lower(): value for name, value in answer.getheaders()},
        body=body,
    )


def send(stack: Stack, data: bytes) -> Reply:
    with connect(stack) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return reply_of(connection)


def asked_of_providers(stack: Stack) -> int:
    """How many requests Envoy has sent upstream."""
    stats = stack.envoy_stats("cluster.provider")
    return sum(count for name, count in stats.items() if name.endswith(".upstream_rq_total"))


def check_denied(stack: Stack, data: bytes) -> Reply:
    """Send what must be refused without any provider hearing of it."""
    before = asked_of_providers(stack)
    answer = send(stack, data)

    assert answer.is_refusal, (answer.status, answer.body[:300])
    assert asked_of_providers(stack) == before, "a provider was asked"
    return answer


def check_inspected(stack: Stack, data: bytes) -> Reply:
    """Send what must be refused, or answered after a decision that has a number."""
    answer = send(stack, data)

    assert answer.is_refusal or answer.headers.get(DECISION_ID), (answer.status, answer.headers)
    return answer


def sidecar_log(stack: Stack) -> str:
    return (stack.folder / "sidecar.log").read_text()


# --- credentials


@BOTH
def test_two_credentials_in_one_header_are_nobodys(caller: Caller) -> None:
    other = call(caller.stack)
    body = body_for(OPENAI)
    for keys in ((caller.key, other.key), (caller.key, caller.key), (caller.key, "nobody"), ("", caller.key)):
        answer = check_denied(caller.stack, request(*map(bearer, keys), body=body))
        assert answer.status in {401, 403}
        assert not any(key and key.encode() in answer.body for key in keys)
    for line in (f"x-api-key: {caller.key}", f"x-api-key: {other.key}"):
        assert check_denied(caller.stack, request(line, line, body=body)).status == 403

    assert (caller.tokens_used(), other.tokens_used()) == (0, 0)


@BOTH
def test_keys_of_two_callers_charge_one_and_neither_goes_upstream(caller: Caller) -> None:
    """The order of the Identity's sources decides, never the order of the headers."""
    second = call(caller.stack)
    lines = (f"x-api-key: {second.key}", bearer(caller.key))
    for headers in (lines, lines[::-1]):
        answer = check_inspected(caller.stack, request(*headers, body=body_for(OPENAI)))
        assert answer.status == 200
    spent = 2 * json.loads(answer.body)["usage"]["total_tokens"]
    wait_until(lambda: caller.tokens_used() == spent, "the first source's caller pays")

    assert second.tokens_used() == 0
    (booked,) = caller.stack.books()["entries"][-1:]
    assert second.key not in json.dumps(booked)
    assert caller.key not in json.dumps(booked)


@BOTH
def test_a_wrong_key_is_not_made_good_by_a_right_one_elsewhere(caller: Caller) -> None:
    answer = check_denied(
        caller.stack, request(bearer("nobody"), f"x-api-key: {caller.key}", body=body_for(OPENAI))
    )

    assert answer.status == 403
    assert caller.tokens_used() == 0


@BOTH
@pytest.mark.parametrize(
    "line",
    [
        "authorization: Bearer",
        "authorization: Bearer \t",
        "authorization: Basic {key}",
        "authorization: {key}",
        "authorization: Bearer {key}, Bearer {key}",
        "authorization: Bearer {key}\x00",
        "authorization : Bearer {key}",
        " authorization: Bearer {key}",
        "authorization: Bearer {key}\r\n folded",
        "authorization: Bearer \xff{key}",
        "proxy-authorization: Bearer {key}",
        "cookie: authorization=Bearer {key}",
    ],
)
def test_a_credential_that_is_nearly_one_is_none(caller: Caller, line: str) -> None:
    data = request(line.format(key=caller.key), body=body_for(OPENAI))

    assert check_denied(caller.stack, data).status in {NOBODY, 400, 401, 403}


# --- smuggled headers


SMUGGLED = (
    "x-ai-policy-team: boss",
    "X-AI-Policy-Decision-Id: mine",
    "x_ai_policy_team: boss",
    "x-ai-policy-warning: nothing",
    "x-envoy-original-path: /v1/models",
    "x-envoy-internal: true",
    "x-envoy-external-address: 10.0.0.1",
    "x-envoy-upstream-rq-timeout-ms: 1",
    "x-envoy-upstream-rq-per-try-timeout-ms: 1",
    "x-envoy-retry-on: 5xx",
    "x-envoy-max-retries: 100",
    "x-envoy-upstream-alt-stat-name: mine",
    "x-envoy-decorator-operation: mine",
    "x-envoy-force-trace: true",
    "x-envoy-hedge-on-per-try-timeout: true",
    "x-envoy-expected-rq-timeout-ms: 1",
)


@OURS
def test_headers_that_steer_envoy_or_speak_for_us_do_nothing_from_outside(caller: Caller) -> None:
    answer = check_inspected(
        caller.stack, request(bearer(caller.key), *SMUGGLED, body=body_for(OPENAI), path=PATH)
    )

    assert answer.status == 200
    assert answer.headers[DECISION_ID] != "mine"
    (booked,) = caller.stack.books()["entries"][-1:]
    passed = {name.lower() for name in booked["request_headers"]}
    assert {name for name in passed if name.startswith("x-envoy-")} == set()
    assert {name for name in passed if "policy" in name} <= {DECISION_ID}
    assert "mine" not in json.dumps(booked)


@OURS
def test_a_retry_that_the_caller_orders_does_not_happen(caller: Caller) -> None:
    before = asked_of_providers(caller.stack)
    answer = send(
        caller.stack,
        request(
            *(bearer(caller.key), "x-demo-fault: status=503", "x-envoy-retry-on: 5xx,gateway-error"),
            "x-envoy-max-retries: 5",
            body=body_for(OPENAI),
        ),
    )

    assert answer.status == 503
    assert asked_of_providers(caller.stack) == before + 1


@BOTH
@pytest.mark.parametrize(
    "line",
    [
        "x-http-method-override: GET",
        "X-HTTP-Method-Override: DELETE",
        "x-http-method: GET",
        "x-method-override: OPTIONS",
    ],
)
@pytest.mark.parametrize("model", [OPENAI, DENIED])
def test_a_method_in_a_header_is_refused(caller: Caller, line: str, model: str) -> None:
    """A framework behind us might obey it, and do something else than what was inspected."""
    answer = check_denied(caller.stack, request(bearer(caller.key), line, body=body_for(model)))

    assert answer.status == 403


# --- paths and methods


SPELLINGS = (
    "/v1/%63hat/completions",
    "/%76%31/chat/completions",
    "/v1/chat/comp%6Cetions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions;x",
    "/v1/chat/completions;x=/v1/models",
    "/v1/chat;/completions",
    "/v1/./chat/completions",
    "/./v1/chat/completions",
    "/../v1/chat/completions",
    "/v1/x/../chat/completions",
    "/v1/models/../chat/completions",
    "/v1/messages/../chat/completions",
    "/v1/models/%2e%2e/chat/completions",
    "/v1/models/%2e./chat/completions",
    "/v1/models/..%2fchat/completions",
    "/v1/models/..;/chat/completions",
    "/v1/chat%2fcompletions",
    "/v1%2Fchat/completions",
    "/v1/chat%5Ccompletions",
    "/v1\\chat\\completions",
    "/v1/chat/completions/",
    "/v1/chat/completions%2f",
    "/v1/chat/completions%00",
    "/v1/chat/completions%20",
    "/v1/chat/completions%0d%0ax:y",
    "/v1/chat/completions%3Fx",
    "/v1/chat/completions%23x",
    "/v1/chat/completions#x",
    "/v1/chat/completions?x#y",
    "/v1/chat/completions?",
    "/v1/chat/completions??x=//..",
    "/v1/%2563hat/completions",
    "/v1/chat/completions%",
    "/v1/chat/completions%zz",
    "/v1/chat/completions%c0%af",
    "/v1/chat/completions\xe9",
    "/V1/CHAT/COMPLETIONS",
    "/v1/Chat/completions",
    "/v1/chat/completions.json",
    "http://elsewhere/v1/chat/completions",
    "http://elsewhere//v1/./chat/completions",
    "v1/chat/completions",
    "*",
)


@BOTH
@pytest.mark.parametrize("path", SPELLINGS)
def test_another_spelling_of_a_path_meets_the_same_policy_or_is_refused(caller: Caller, path: str) -> None:
    stack = caller.stack

    check_denied(stack, request(body=body_for(OPENAI), path=path))
    check_denied(stack, request(bearer(caller.key), body=body_for(DENIED), path=path))
    allowed = check_inspected(stack, request(bearer(caller.key), body=body_for(OPENAI), path=path))

    if allowed.status == 200:
        wait_until(lambda: caller.tokens_used() > 0, "an allowed request is charged")


@BOTH
@pytest.mark.parametrize(
    "method",
    ["post", "Post", "PUT", "PATCH", "DELETE", "GET", "HEAD", "TRACE", "CONNECT", "BREW", ""],
)
def test_another_method_meets_the_same_policy_or_is_refused(caller: Caller, method: str) -> None:
    stack = caller.stack

    check_denied(stack, request(body=body_for(OPENAI), method=method))
    check_denied(stack, request(bearer(caller.key), body=body_for(DENIED), method=method))
    assert check_inspected(
        stack, request(bearer(caller.key), body=body_for(OPENAI), method=method)
    ).is_refusal


@BOTH
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_body_under_a_method_that_has_none_is_refused(caller: Caller, method: str) -> None:
    """A provider might read it all the same."""
    data = request(bearer(caller.key), body=body_for(OPENAI), path="/v1/models", method=method)

    assert check_denied(caller.stack, data).status in {NOBODY, 400, 403}


# --- framing


def chunked(body: bytes, *trailers: str) -> bytes:
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return chunks + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


TRAILERS = ("x-ai-policy-team: boss", "authorization: Bearer sk-e2e-0", "content-length: 5")


@BOTH
def test_a_chunked_body_with_trailers_is_inspected_whole(caller: Caller) -> None:
    def ask(model: str) -> bytes:
        plain = request(bearer(caller.key), "transfer-encoding: chunked", "trailer: x-x", length=False)
        return plain + chunked(body_for(model), *TRAILERS)

    assert check_denied(caller.stack, ask(DENIED)).status == 403
    answer = check_inspected(caller.stack, ask(OPENAI))

    assert answer.status == 200
    wait_until(lambda: caller.tokens_used() > 0, "charged to its own team")
    assert "boss" not in json.dumps(caller.stack.books()["entries"][-1:])


@BOTH
def test_a_credential_in_a_trailer_is_none(caller: Caller) -> None:
    plain = request("transfer-encoding: chunked", "trailer: authorization", length=False)

    answer = check_denied(caller.stack, plain + chunked(body_for(OPENAI), bearer(caller.key)))

    assert answer.status == 401


AMBIGUOUS = {
    "a length and chunks": ("content-length: 5", "transfer-encoding: chunked"),
    "chunks and a length": ("transfer-encoding: chunked", "content-length: 5"),
    "two lengths": ("content-length: 5", "content-length: 500"),
    "a list of lengths": ("content-length: 5, 500",),
    "a signed length": ("content-length: +5",),
    "a hexadecimal length": ("content-length: 0x5",),
    "chunks in disguise": ("transfer-encoding: xchunked",),
    "chunks twice": ("transfer-encoding: chunked, chunked",),
    "chunks after something": ("transfer-encoding: identity, chunked",),
    "chunks with a tab": ("transfer-encoding:\tchunked", "content-length: 5"),
}


@BOTH
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_body_whose_end_is_ambiguous_smuggles_nothing(caller: Caller, name: str) -> None:
    """The bytes behind one reading of the length are a request that policy denies."""
    hidden = request(bearer(caller.key), body=body_for(DENIED))
    before = asked_of_providers(caller.stack)

    answer = send(
        caller.stack,
        request(bearer(caller.key), *AMBIGUOUS[name], length=False) + b"0\r\n\r\n" + hidden,
    )

    assert answer.is_refusal
    assert asked_of_providers(caller.stack) == before


@BOTH
def test_pipelined_requests_are_inspected_one_by_one(caller: Caller) -> None:
    def ask(model: str) -> bytes:
        return request(bearer(caller.key), body=body_for(model)).replace(b"connection: close\r\n", b"")

    with connect(caller.stack) as connection:
        connection.sendall(ask(OPENAI) + ask(DENIED) + request(bearer(caller.key), body=body_for(OPENAI)))
        stream = connection.makefile("rb")
        statuses = [statuses_in(stream) for _ in range(3)]

    assert statuses == [200, 403, 200]


def statuses_in(stream: Any) -> int:
    """Read one answer off a connection that goes on; its status."""
    status = int(stream.readline().split()[1])
    headers = http.client.parse_headers(stream)
    if "content-length" in headers:
        stream.read(int(headers["content-length"]))
        return status
    while size := int(stream.readline(), 16):
        stream.read(size + 2)
    stream.readline()
    return status


@BOTH
def test_expect_100_continue_is_answered_and_the_body_inspected(caller: Caller) -> None:
    def ask(model: str, *headers: str) -> tuple[bytes, Reply]:
        body = body_for(model)
        with connect(caller.stack) as connection:
            data = request(*headers, "expect: 100-continue", body=body)
            connection.sendall(data.removesuffix(body))
            interim = b""
            while not interim.endswith(b"\r\n\r\n"):
                interim += connection.recv(1)
            if b" 100 " not in interim:
                # Refused by the headers alone.
                return interim, Reply(status=int(interim.split()[1]), headers={}, body=b"")
            connection.sendall(body)
            return interim, reply_of(connection)

    interim, allowed = ask(OPENAI, bearer(caller.key))
    _, denied = ask(DENIED, bearer(caller.key))
    _, anonymous = ask(OPENAI)

    assert interim.startswith(b"HTTP/1.1 100 ")
    assert allowed.status == 200
    assert allowed.headers[DECISION_ID]
    assert denied.status == 403
    assert anonymous.status == 401


@BOTH
def test_a_client_of_http2_without_tls_meets_the_same_policy(caller: Caller) -> None:
    def ask(model: str, path: str, *headers: str) -> tuple[str, str]:
        # An answer that overtakes the upload may reset its stream before curl has read it: it saw nothing.
        answers = (ask_once(model, path, *headers) for _ in range(5))
        return next((answer for answer in answers if answer[0] != "0 000"), ("0 000", ""))

    def ask_once(model: str, path: str, *headers: str) -> tuple[str, str]:
        got = subprocess.run(
            [
                *("curl", "--silent", "--http2-prior-knowledge", "--path-as-is", "--max-time", "30"),
                *(word for header in headers for word in ("--header", header)),
                *("--data-binary", body_for(model).decode(), "--write-out", "\n%{http_version} %{http_code}"),
                f"{caller.stack.gateway_url}{path}",
            ],
            capture_output=True,
            text=True,
            # An answer before the end of the upload makes curl complain after it has printed it.
            check=False,
        )
        body, _, protocol_and_status = got.stdout.rpartition("\n")
        return protocol_and_status, body

    assert ask(OPENAI, PATH, bearer(caller.key))[0] == "2 200"
    assert ask(OPENAI, PATH)[0] == "2 401"
    protocol, body = ask(DENIED, PATH, bearer(caller.key))
    assert protocol == "2 403"
    assert "AccessRule/no-o1-pro" in body
    before = asked_of_providers(caller.stack)
    for path in ("//v1/chat/completions", "/v1/%63hat/completions", "/v1/./chat/completions"):
        assert ask(DENIED, path, bearer(caller.key))[0] != "2 200"
    assert asked_of_providers(caller.stack) == before


# --- slow and gone


@BOTH
def test_a_caller_that_leaves_within_its_body_is_charged_nothing_and_leaves_nothing(caller: Caller) -> None:
    stack = caller.stack
    before = asked_of_providers(stack)
    body = body_for(OPENAI)
    for sent in (0, 1, len(body) // 2, len(body) - 1):
        with connect(stack) as connection:
            connection.sendall(request(bearer(caller.key), body=body)[: sent - len(body)])
            time.sleep(0.05)
    with connect(stack) as connection:  # by a reset, not by an end
        connection.sendall(request(bearer(caller.key), body=body)[:-5])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    wait_until(lambda: open_streams(stack) == 0, "every stream closed")
    assert asked_of_providers(stack) == before
    assert caller.tokens_used() == 0
    assert "stream failed" not in sidecar_log(stack)


def open_streams(stack: Stack) -> float:
    text = httpx.get(f"{stack.admin_url}/metrics").text
    (line,) = [each for each in text.splitlines() if each.startswith("ai_policy_streams_active")]
    return float(line.split()[-1])


@BOTH
def test_a_body_that_trickles_is_inspected_whole(caller: Caller) -> None:
    def trickle(model: str) -> Reply:
        data = request(bearer(caller.key), body=body_for(model))
        with connect(caller.stack) as connection:
            for start in range(0, len(data), 16):
                connection.sendall(data[start : start + 16])
                time.sleep(0.02)
            return reply_of(connection)

    assert trickle(OPENAI).status == 200
    assert trickle(DENIED).status == 403


@BOTH
def test_a_body_of_one_byte_chunks_is_inspected_whole(caller: Caller) -> None:
    plain = request(bearer(caller.key), "transfer-encoding: chunked", length=False)

    def ask(model: str) -> Reply:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body_for(model))
        return send(caller.stack, plain + chunks + b"0\r\n\r\n")

    assert ask(OPENAI).status == 200
    assert ask(DENIED).status == 403


@BOTH
def test_three_hundred_connections_at_once_are_all_answered_and_settled(caller: Caller) -> None:
    stack = caller.stack
    count = 300
    before = sum(settlements(stack).values())
    data = request(bearer(caller.key), "x-demo-output-tokens: 7", body=body_for(OPENAI))

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway_port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def all_at_once() -> list[bytes]:
        async with asyncio.timeout(90):
            return await asyncio.gather(*(ask() for _ in range(count)))

    answers = asyncio.run(all_at_once())
    spent = sum(
        json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])["usage"]["total_tokens"]
        for answer in answers
    )

    assert {answer.split(b" ", 2)[1] for answer in answers} == {b"200"}
    wait_until(lambda: sum(settlements(stack).values()) == before + count, "every one settled")
    # A refund leaves out what refilled since its reservation: less than one token here, never a gift.
    wait_until(lambda: caller.tokens_used() in {spent, spent + 1}, "the budget equals what the answers said")


# --- the sidecar itself


def be_impatient(bootstrap: str) -> str:
    return check_often(bootstrap).replace("message_timeout: 10s", f"message_timeout: {PATIENCE_S}s")


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose sidecar tests may break, and bring back."""
    with Stack(
        tmp_path_factory.mktemp("own"),
        policies=policies.FILES,
        environment={"EXTPROC_DEADLINE_S": "1"},
        edit=be_impatient,
    ) as stack:
        yield stack


@pytest.fixture
def victim(own_stack: Stack) -> Caller:
    return call(own_stack)


def sidecar_pid(stack: Stack) -> int:
    return stack._running_sidecar.process.pid


def garbage() -> Iterator[bytes]:
    noise = random.Random(7)
    yield b""
    yield b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    yield noise.randbytes(100_000)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield preface
    yield preface + noise.randbytes(10_000)
    yield preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff\xff\xff\x01\x05\x00\x00\x00\x01" * 100
    yield b"\x16\x03\x01" + noise.randbytes(500)  # a TLS greeting


def test_garbage_on_the_grpc_port_disturbs_nobody(victim: Caller) -> None:
    stack = victim.stack
    host, _, port = stack._grpc.partition(":")
    for data in garbage():
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(data)
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass
    with grpc.insecure_channel(stack._grpc) as channel:
        for message in (b"", b"\xff" * 50, pb.ProcessingResponse().SerializeToString(), b"\x12\x02\xff\xff"):
            raw = channel.stream_stream(f"/{SERVICE}/Process", bytes, bytes)
            with pytest.raises(grpc.RpcError) as failed:
                list(raw(iter([message]), timeout=10))
            # An end without an error would be an open door.
            assert failed.value.code() is not grpc.StatusCode.OK
        with pytest.raises(grpc.RpcError):
            list(channel.stream_stream("/no.such.Service/Call", bytes, bytes)(iter([b""]), timeout=10))

    assert send(stack, request(bearer(victim.key), body=body_for(OPENAI))).status == 200
    assert send(stack, request(bearer(victim.key), body=body_for(DENIED))).status == 403
    wait_until(lambda: open_streams(stack) == 0, "every stream closed")


def test_a_frozen_sidecar_is_a_503_in_json_and_after_it_thaws_everything_works(victim: Caller) -> None:
    stack = victim.stack
    used = victim.tokens_used()
    before = asked_of_providers(stack)
    frozen_at = time.monotonic()
    os.kill(sidecar_pid(stack), signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            data = request(bearer(victim.key), body=body_for(OPENAI))
            answers = list(pool.map(lambda _: send(stack, data), range(4)))
        time.sleep(max(0.0, PATIENCE_S + 2 - (time.monotonic() - frozen_at)))
        late = send(stack, data)
        asked = asked_of_providers(stack)
    finally:
        os.kill(sidecar_pid(stack), signal.SIGCONT)

    for answer in (*answers, late):
        assert answer.status == 503
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body)["error"]["code"] == "policy_unavailable"
    assert asked == before, "a request passed without a decision"
    stack.await_envoys_view(healthy=True)
    assert send(stack, data).status == 200
    assert send(stack, request(bearer(victim.key), body=body_for(DENIED))).status == 403
    wait_until(lambda: open_streams(stack) == 0, "nothing of the frozen time is left open")
    wait_until(lambda: used < victim.tokens_used() < used + 200, "the one answered request is charged")


def test_an_answer_under_way_when_the_sidecar_freezes_never_looks_whole(victim: Caller) -> None:
    stack = victim.stack
    body = body_for(OPENAI, stream=True, stream_options={"include_usage": True})
    pace = ("x-demo-output-tokens: 20", "x-demo-interval-ms: 50")
    with connect(stack) as connection:
        connection.sendall(request(bearer(victim.key), *pace, body=body))
        answer = connection.recv(65536)
        while b"data: " not in answer:
            answer += connection.recv(65536)
        os.kill(sidecar_pid(stack), signal.SIGSTOP)
        try:
            with contextlib.suppress(ConnectionError):
                while more := connection.recv(65536):
                    answer += more
        finally:
            os.kill(sidecar_pid(stack), signal.SIGCONT)

    assert answer.startswith(b"HTTP/1.1 200")
    # Without its last chunk of no bytes an HTTP/1.1 client knows that something is missing.
    assert not answer.endswith(b"0\r\n\r\n")
    stack.await_envoys_view(healthy=True)
    wait_until(lambda: victim.tokens_used() > 0, "what was sent is charged")


def test_a_sidecar_killed_under_fifty_streams_leaves_no_answer_whole_and_returns(victim: Caller) -> None:
    stack = victim.stack
    count = 50
    body = body_for(OPENAI, stream=True, max_tokens=400, stream_options={"include_usage": True})
    pace = ("x-demo-output-tokens: 200", "x-demo-interval-ms: 50")
    data = request(bearer(victim.key), *pace, body=body)

    async def stream(begun: asyncio.Semaphore) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway_port)
        writer.write(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"data: " not in answer and (more := await reader.read(65536)):
                answer += more
            begun.release()
            while more := await reader.read(65536):
                answer += more
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return answer

    async def kill_them() -> list[bytes]:
        begun = asyncio.Semaphore(0)
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            streams = [group.create_task(stream(begun)) for _ in range(count)]
            for _ in streams:
                await begun.acquire()
            stack.kill_sidecar(signal.SIGKILL)
        return [each.result() for each in streams]

    answers = asyncio.run(kill_them())

    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
    assert [answer[-80:] for answer in answers if answer.endswith(b"0\r\n\r\n")] == []
    assert [answer[-80:] for answer in answers if b"[DONE]" in answer] == []
    stack.start_sidecar()
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        plain = request(bearer(victim.key), body=body_for(OPENAI))
        again = list(pool.map(lambda _: send(stack, plain).status, range(count)))
    assert again == [200] * count
