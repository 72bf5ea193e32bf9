"""The HTTP admin port, asked over real connections."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extproc import admin
from extproc.admin import Admin, AdminServer, Probes
from extproc.errors import SettingsInvalid
from extproc.reload import PolicyFolder
from extproc.settings import Settings
from extproc.telemetry import Metrics

KEY = "sk-canary-of-a-caller"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
TOKEN = "token-canary-of-a-reader"
POLICIES = f"""
apiVersion: ai-policy/v1
kind: Defaults
metadata: {{name: main}}
spec: {{access: deny}}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {{name: somebody}}
spec: {{sha256: {DIGEST}, user: somebody, description: A caller.}}
"""
NOTICE = "vocabulary o200k_base is missing"
PATHS = ("/healthz", "/readyz", "/metrics", "/policies")
LISTENED = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One admin server on a port of its own."""

    port: int
    folder: PolicyFolder
    metrics: Metrics
    path: Path

    async def ask(
        self, path: str, *, method: str = "GET", host: str | None = "localhost", **headers: str
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "connection: close"]
        lines += [] if host is None else [f"host: {host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return await self.send("\r\n".join([*lines, "", ""]).encode())

    async def send(self, request: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(LISTENED, self.port)
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return Answer(
            status=int(first.split()[1]),
            headers={name.lower(): value for name, _, value in pairs},
            body=body,
        )


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    path = tmp_path / "policies"
    path.mkdir()
    (path / "all.yaml").write_text(POLICIES)
    folder, metrics = PolicyFolder(path), Metrics(version="0")
    running: list[tuple[AdminServer, asyncio.Task[None]]] = []

    async def start_one(**changes: Any) -> Running:
        settings = Settings(policies=path, admin_port=0, **changes)
        listener = admin.listen(settings)
        server = Admin(settings, folder, metrics, lambda: [NOTICE])
        running.append((server, asyncio.ensure_future(server.serve(listener))))
        probes = admin.listen_for_probes(settings)
        if probes is not None:
            only_open = Probes(settings, server)
            running.append((only_open, asyncio.ensure_future(only_open.serve(probes))))
        port = (probes or listener).getsockname()[1]
        return Running(port=port, folder=folder, metrics=metrics, path=path)

    yield start_one
    for server, serving in running:
        server.stop()
        await serving
    metrics.close()


@pytest.fixture
async def local(start: Start) -> Running:
    return await start()


@pytest.fixture
async def public(start: Start) -> Running:
    return await start(admin_host="0.0.0.0", admin_token=TOKEN)


@pytest.fixture
async def probes(start: Start) -> Running:
    """The listener of probes and metrics alone."""
    return await start(metrics_port=0, admin_token=TOKEN)


# --- what it says


async def test_a_port_of_their_own_has_probes_and_metrics_for_everybody_and_nothing_else(
    probes: Running,
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await probes.ask(path, host="10.1.2.3:9102")).status == 200
    for path in ("/policies", "/counters", "/decisions", "/usage", "/"):
        assert (await probes.ask(path, authorization=f"Bearer {TOKEN}")).status == 404


async def test_a_page_of_another_site_loads_nothing_and_may_link_here(local: Running) -> None:
    elsewhere = {"sec_fetch_site": "cross-site"}

    assert (await local.ask("/policies", **elsewhere, sec_fetch_mode="no-cors")).status == 403
    assert (await local.ask("/policies", **elsewhere, sec_fetch_mode="cors")).status == 403
    assert (await local.ask("/policies", **elsewhere, sec_fetch_mode="navigate")).status == 200
    assert (await local.ask("/policies", sec_fetch_site="same-origin", sec_fetch_mode="cors")).status == 200


async def test_the_probes_answer(local: Running) -> None:
    healthy, ready = await local.ask("/healthz"), await local.ask("/readyz")

    assert (healthy.status, healthy.body) == (200, b"ok\n")
    assert ready.status == 200
    assert ready.json == {
        "ready": True,
        "revision": local.folder.current.revision,
        "last_reload_ok": True,
        "problems": [],
        "notices": [NOTICE],
    }


async def test_a_failed_reload_is_said_and_takes_no_traffic_away(local: Running) -> None:
    (local.path / "all.yaml").write_text("kind: [")
    await local.folder.look()

    ready, policies = await local.ask("/readyz"), await local.ask("/policies")

    assert ready.status == 200
    assert ready.json["last_reload_ok"] is False
    assert ready.json["problems"][0].startswith("all.yaml:1:")
    assert policies.json["last_reload"]["ok"] is False
    assert policies.json["last_reload"]["problems"] == ready.json["problems"]
    assert [item["name"] for item in policies.json["objects"]] == ["somebody", "main"]


async def test_metrics_are_prometheus_text(local: Running) -> None:
    local.metrics.reload_failures.add(2)

    answer = await local.ask("/metrics")

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"\nai_policy_reload_failures_total 2.0\n" in answer.body


async def test_policies_are_listed_without_the_digest_of_any_key(local: Running) -> None:
    answer = await local.ask("/policies")

    assert answer.json["revision"] == local.folder.current.revision
    assert {
        "kind": "ApiKey",
        "name": "somebody",
        "mode": "enforce",
        "description": "A caller.",
        "file": "all.yaml",
        "line": 7,
    } in answer.json["objects"]
    # Nor any part of it: a part is enough to try keys against.
    assert not any(DIGEST[i : i + 8].encode() in answer.body for i in range(len(DIGEST) - 8))


@pytest.mark.parametrize("path", ["/", "/nothing", "/policies/", "/policies/main", "/healthz/../policies"])
async def test_an_unknown_path_is_not_found(local: Running, path: str) -> None:
    assert (await local.ask(path)).status in {404, 307}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_what_is_only_read_cannot_be_written(start: Start, path: str, method: str) -> None:
    running = await start(admin_token=TOKEN)
    headers = {"authorization": f"Bearer {TOKEN}", "content_type": "application/json"}

    assert (await running.ask(path, method=method, **headers)).status == 405
    assert (await running.ask(path, method=method, content_type="application/json")).status == 401
    assert (await running.ask(path, method=method, authorization=f"Bearer {TOKEN}")).status == 415


async def test_without_a_token_nobody_writes_even_on_loopback(local: Running) -> None:
    answer = await local.ask("/counters/reset", method="POST", content_type="application/json")

    assert answer.status == 403
    assert "EXTPROC_ADMIN_TOKEN" in answer.json["error"]


# --- who may ask


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.9", "[::1]"])
@pytest.mark.parametrize("port", ["", ":8080"])
async def test_a_host_that_is_this_machine_is_served(local: Running, host: str, port: str) -> None:
    assert (await local.ask("/policies", host=host + port)).status == 200


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
@pytest.mark.parametrize(
    "host",
    [
        *(
            "rebound.example",
            "rebound.example:8080",
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
        ),
        *("10.0.0.1", "[2001:db8::1]:8080", "0.0.0.0", "::", "", "@localhost.example"),
    ],
)
async def test_a_browser_that_was_lured_here_by_a_name_is_refused_everywhere(
    local: Running, path: str, host: str
) -> None:
    answer = await local.ask(path, host=host)

    assert answer.status == 421
    assert b"revision" not in answer.body


async def test_a_request_without_a_host_is_refused(local: Running) -> None:
    assert (await local.ask("/policies", host=None)).status in {400, 421}
    assert (await local.send(b"GET /policies HTTP/1.0\r\n\r\n")).status == 421


async def test_two_hosts_are_refused(local: Running) -> None:
    lines = b"GET /policies HTTP/1.1\r\nhost: localhost\r\nhost: rebound.example\r\nconnection: close\r\n\r\n"

    assert (await local.send(lines)).status in {400, 421}


async def test_on_loopback_no_token_is_asked_for_even_where_one_is_set(start: Start) -> None:
    running = await start(admin_token=TOKEN)

    assert (await running.ask("/policies")).status == 200


@pytest.mark.parametrize("path", sorted(admin.OPEN_PATHS))
async def test_probes_and_metrics_are_open_whatever_the_host(public: Running, path: str) -> None:
    assert (await public.ask(path, host="10.1.2.3:8080")).status == 200


WRONG_TOKENS = {
    "none": {},
    "empty": {"authorization": "Bearer "},
    "another": {"authorization": "Bearer nope"},
    "a beginning": {"authorization": f"Bearer {TOKEN[:-1]}"},
    "more": {"authorization": f"Bearer {TOKEN}x"},
    "no scheme": {"authorization": TOKEN},
    "another scheme": {"authorization": f"Basic {TOKEN}"},
    "not ASCII": {"authorization": "Bearer \xff\xfe"},
    "another header": {"x_api_key": TOKEN},
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
@pytest.mark.parametrize("path", ["/policies", "/nothing"])
async def test_without_the_token_nothing_else_is_told(public: Running, path: str, name: str) -> None:
    answer = await public.ask(path, host="10.1.2.3", **WRONG_TOKENS[name])

    assert answer.status == 401
    assert answer.headers["content-type"] == "application/json"
    assert TOKEN.encode() not in answer.body
    assert b"revision" not in answer.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_token_the_policies_are_read(public: Running, scheme: str) -> None:
    answer = await public.ask("/policies", host="10.1.2.3", authorization=f"{scheme} {TOKEN}")

    assert answer.status == 200


async def test_a_token_that_is_not_ascii_works(start: Start) -> None:
    running = await start(admin_host="0.0.0.0", admin_token="schlüssel")
    sent = "schlüssel".encode()

    answer = await running.send(
        b"GET /policies HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
        + sent
        + b"\r\n\r\n"
    )

    assert answer.status == 200


# --- the listener


async def test_a_port_in_use_is_named_with_what_moves_it(local: Running) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        admin.listen(Settings(policies=Path(), admin_port=local.port))

    for word in (f"127.0.0.1:{local.port}", "--admin-port", "EXTPROC_ADMIN_PORT", "in use"):
        assert word in str(invalid.value)


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        admin.listen(Settings(policies=Path(), admin_host="no.such.invalid", admin_token=TOKEN))

    assert "no.such.invalid" in str(invalid.value)
    assert "EXTPROC_ADMIN_HOST" in str(invalid.value)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    listener = admin.listen(Settings(policies=Path(), admin_port=0))
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_it_listens_on_ipv6() -> None:
    with admin.listen(Settings(policies=Path(), admin_host="::1", admin_port=0)) as listener:
        socket.create_connection(listener.getsockname()[:2]).close()


async def test_a_slow_client_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(POLICIES)
    settings, metrics = Settings(policies=tmp_path, admin_port=0), Metrics(version="0")
    listener = admin.listen(settings)
    server = Admin(settings, PolicyFolder(tmp_path), metrics, list)
    serving = asyncio.ensure_future(server.serve(listener))
    _, silent = await asyncio.open_connection(*listener.getsockname())
    _, half = await asyncio.open_connection(*listener.getsockname())
    half.write(b"GET /readyz HTT")
    await half.drain()
    reader, idle = await asyncio.open_connection(*listener.getsockname())
    idle.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")

    server.stop()
    async with asyncio.timeout(30):
        await serving

    for writer in (silent, half, idle):
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    metrics.close()
