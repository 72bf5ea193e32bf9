"""Upgraded connections through the real Envoy, where its operator allows them: decided, passed, charged."""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from extproc.envoy_config import UsageMode
from tests.e2e import policies
from tests.e2e.callers import Caller, newcomer, settlements
from tests.e2e.stack import Stack
from tests.e2e.test_hostile import DECISION_ID, DENIED, Reply, asked_of_providers, bearer, request
from tests.e2e.test_requests import wait_until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
UPGRADE = ("upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==")
MODEL = "gpt-realtime"


class Echo(socketserver.BaseRequestHandler):
    """Switches protocols and sends back what comes."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(1)
        self.server.heads.append(head.decode())  # type: ignore[attr-defined]  # set below
        self.request.sendall(SWITCHED)
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture(scope="module")
def echo() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.heads = []  # type: ignore[attr-defined]  # what arrived
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def allow_websockets(bootstrap: str) -> str:
    """What an operator changes who wants them: the listener, and a route before the refusal."""
    document = yaml.safe_load(bootstrap)
    listener = document["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    (below_v1,) = [route for route in routes if route["name"] == "ai_other"]
    routes.insert(0, below_v1 | {"name": "realtime", "match": {"path": "/v1/realtime"}})
    return yaml.safe_dump(document)


@pytest.fixture(scope="module", params=[("native", "1.40.0"), ("stream", "1.38.3")], ids="-".join)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, echo: Any
) -> Iterator[Stack]:
    usage: UsageMode = request.param[0]
    with Stack(
        tmp_path_factory.mktemp("upgrades"),
        envoy=request.param[1],
        usage=usage,
        portable=False,
        policies=policies.FILES,
        provider_port=echo.server_address[1],
        edit=allow_websockets,
    ) as started:
        yield started


@contextmanager
def upgraded(caller: Caller, path: str, *headers: str) -> Iterator[tuple[socket.socket, Reply]]:
    """The connection and its answer, whose body nobody has read yet if protocols were switched."""
    lines = (bearer(caller.key), *UPGRADE, *headers)
    data = request(*lines, path=path, method="GET", length=False)
    with socket.create_connection(("127.0.0.1", caller.stack.gateway_port), timeout=20) as connection:
        connection.sendall(data.replace(b"connection: close", b"connection: upgrade"))
        stream = connection.makefile("rb", buffering=0)
        status = int(stream.readline().split()[1])
        told = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
        body = b"" if status == 101 else stream.read(int(told.get("content-length", "0"))) or b""
        yield connection, Reply(status=status, headers=told, body=body)


def test_an_allowed_upgrade_passes_both_ways_and_is_charged_as_reserved(stack: Stack, echo: Any) -> None:
    caller = newcomer(stack)
    before = settlements(stack)

    with upgraded(caller, f"/v1/realtime?model={MODEL}") as (connection, answer):
        assert answer.status == 101, answer.body
        assert answer.headers[DECISION_ID]
        for size in (5, 70_000):
            sent = b"x" * size
            connection.sendall(sent)
            got = b""
            while len(got) < size and (more := connection.recv(65536)):
                got += more
            assert got == sent

    wait_until(lambda: settlements(stack) != before, "settled")
    assert list((settlements(stack) - before).elements()) == ["reserved"]
    head = echo.heads[-1].lower()
    assert f"get /v1/realtime?model={MODEL} " in head
    assert caller.key not in head
    assert "authorization: bearer sk-provider-demo" in head


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/realtime?model={DENIED}", 403),
        ("/v1/realtime?model=nobody-offers-this", 403),
        ("/v1/realtime", 400),
        (f"/v1/realtime?model={MODEL}&model={DENIED}", 403),
        # The configuration lets no other path past its refusal.
        ("/v1/responses", 400),
        ("/mcp", 400),
    ],
)
def test_an_upgrade_that_policy_or_configuration_refuses_reaches_nobody(
    stack: Stack, path: str, status: int
) -> None:
    caller = newcomer(stack)
    asked, settled = asked_of_providers(stack), settlements(stack)

    with upgraded(caller, path) as (_, answer):
        assert answer.status == status, answer.body

    assert json.loads(answer.body)["error"]["message"]
    assert asked_of_providers(stack) == asked
    assert settlements(stack) == settled


def test_an_upgrade_without_a_key_is_401(stack: Stack) -> None:
    nobody = Caller(stack=stack, key="nobody", team="", untouched=0)

    with upgraded(nobody, f"/v1/realtime?model={MODEL}") as (_, answer):
        assert answer.status in {401, 403}
