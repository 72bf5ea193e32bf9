"""What Envoy itself answers, in the caller's dialect: between a stand-in sidecar and no provider at all."""

from __future__ import annotations

import http.client
import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors
from google.genai.types import HttpOptions

from extproc.decision import Reason
from extproc.envoy_config import EnvoySettings, FilterSettings, render_bootstrap, render_filter
from extproc.formats import FORMATS, classify
from extproc.formats.base import Reply
from extproc.model import RequestHead
from tests.e2e import stand_ins
from tests.e2e.gateway import Gateway, free_ports, gateway
from tests.e2e.portable import render_portable_bootstrap
from tests.formats.test_denials import denial
from tests.formats.test_denials_told import told
from tests.test_envoy_config import ASKED
from tests.test_envoy_config import denial as answered

# A path of each dialect.
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "anthropic_messages": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
    "bedrock_converse": "/model/us.amazon.nova-micro-v1:0/converse",
    "ollama": "/api/chat",
    "mcp": "/mcp",
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
REFUSED = {"x-envoy-upstream-rq-timeout-ms": "1"}  # what no sidecar may set


@dataclass(slots=True)
class Nobody:
    """A provider's address: one that takes connections and never answers, or one that takes none."""

    port: int
    _socket: socket.socket | None = field(default=None)

    def is_silent(self) -> None:
        self.is_gone()
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=64)

    def is_gone(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A gateway, what its sidecar says, and who is not there behind it."""

    envoy: Gateway
    sidecar: stand_ins.Sidecar
    provider: Nobody

    def ask(self, path: str, *, method: str = "POST", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.envoy.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, b"{}" if method == "POST" else None, named)
            return read(connection.getresponse())
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def reason(self) -> str:
        """Our own stable word, in whichever dialect."""
        (found,) = told(Reply(status=0, body=json.dumps(self.body).encode()))["reason"]
        return found


def read(answer: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in answer.getheaders()}
    assert headers["content-type"] == "application/json"
    return Answer(status=answer.status, headers=headers, body=json.loads(answer.read()))


def whole(settings: EnvoySettings) -> str:
    """envoy/envoy.yaml, with time-outs for a test."""
    text = render_bootstrap(settings)
    text = text.replace("request_timeout: 120s", "request_timeout: 0.5s")
    return text.replace("idle_timeout: 600s", "idle_timeout: 1s")


def pasted(settings: EnvoySettings) -> str:
    """envoy/filter.yaml, in an Envoy that was there before."""
    snippet = FilterSettings(policy_endpoints=settings.policy_endpoints)
    return render_portable_bootstrap(settings, render_filter(snippet))


@contextmanager
def running(folder: Path, render: Callable[[EnvoySettings], str], version: str) -> Iterator[Scene]:
    with stand_ins.sidecar() as sidecar:
        port, admin_port, provider_port = free_ports(3)
        settings = EnvoySettings(
            gateway_port=port,
            admin_port=admin_port,
            policy_endpoints=(f"127.0.0.1:{sidecar.port}",),
            demo_provider=f"127.0.0.1:{provider_port}",
            access_log_path=str(folder / "access.log"),
            body_limit_bytes=500_000,
        )
        nobody = Nobody(provider_port)
        with gateway(
            render(settings), port=port, admin_port=admin_port, folder=folder, version=version
        ) as envoy:
            yield Scene(envoy=envoy, sidecar=sidecar, provider=nobody)
        nobody.is_gone()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running(tmp_path_factory.mktemp("gate"), whole, "1.40.0") as scene:
        yield scene


@pytest.fixture
def scene(gate: Scene) -> Scene:
    gate.sidecar.denial, gate.sidecar.set_headers = None, {}
    gate.provider.is_gone()
    return gate


ID = "d-1"  # as the stand-in decides
GONE = "The provider could not be reached or did not answer. Please try again. (decision d-1)"
FACTS = {"reason": "provider_unavailable", "decision_id": ID, "retry_after": 1}
GOOGLE_INFO = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "PROVIDER_UNAVAILABLE",
    "domain": "ai-policy",
    "metadata": {"decisionId": ID, "retryAfter": "1"},
}
GOOGLE_WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
BODIES: dict[str, Any] = {
    "openai_chat": {
        "error": {"message": GONE, "type": "server_error", "param": None, "code": FACTS["reason"], **FACTS}
    },
    "anthropic_messages": {
        "type": "error",
        "error": {"type": "overloaded_error", "message": GONE, **FACTS},
        "request_id": ID,
    },
    "gemini": {
        "error": {
            "code": 503,
            "message": GONE,
            "status": "UNAVAILABLE",
            "details": [GOOGLE_INFO, GOOGLE_WAIT],
        }
    },
    "mcp": {"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": GONE, "data": FACTS}},
    "bedrock_converse": {"error": GONE, "error_type": "generation", "message": GONE, **FACTS},
    "ollama": {"error": GONE, "error_type": "generation", "message": GONE, **FACTS},
}


@pytest.mark.parametrize("name", PATHS)
def test_a_provider_that_is_gone_is_told_in_each_dialect_with_the_decision(scene: Scene, name: str) -> None:
    answer = scene.ask(PATHS[name])

    assert answer.status == 503
    assert answer.body == BODIES[name]
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
    assert answer.headers["x-ai-policy-decision-id"] == ID
    assert answer.headers.get("x-amzn-errortype") in (None, "ServiceUnavailableException")


def at_once(ask: Callable[[str], Answer]) -> list[Answer]:
    """Every path's answer: all of them wait for the same time-out."""
    with ThreadPoolExecutor(len(PATHS)) as callers:
        return list(callers.map(ask, PATHS.values()))


def test_a_provider_that_says_nothing_is_a_time_out_to_try_again(scene: Scene) -> None:
    scene.provider.is_silent()
    answers = at_once(scene.ask)

    assert {(answer.status, answer.reason) for answer in answers} == {(504, "provider_timeout")}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert all("(decision d-1)" in json.dumps(answer.body) for answer in answers)


@every_path
def test_a_sidecar_that_fails_is_a_503_to_try_again_without_any_decision(scene: Scene, path: str) -> None:
    scene.sidecar.set_headers = REFUSED
    answer = scene.ask(path)

    assert (answer.status, answer.reason) == (503, "policy_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "(decision" not in json.dumps(answer.body)


@every_path
def test_an_upgrade_is_refused_for_good(scene: Scene, path: str) -> None:
    answer = scene.ask(path, method="GET", connection="upgrade", upgrade="websocket")

    assert (answer.status, answer.reason) == (400, "upgrade_not_supported")
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


@every_path
def test_a_path_with_two_readings_is_refused_for_good(scene: Scene, path: str) -> None:
    answer = scene.ask(f"{path};x=1")

    assert (answer.status, answer.reason) == (400, "path_ambiguous")
    assert answer.headers["x-should-retry"] == "false"


@every_path
def test_a_body_that_grows_too_large_is_refused_for_good(scene: Scene, path: str) -> None:
    answer = pour(scene, path)

    assert (answer.status, answer.reason) == (413, "request_too_large")
    assert answer.headers["x-should-retry"] == "false"


def pour(scene: Scene, path: str) -> Answer:
    """Send for as long as nobody answers: the refusal closes the connection, which would swallow itself."""
    connection = http.client.HTTPConnection("127.0.0.1", scene.envoy.port, timeout=20)
    connection.putrequest("POST", path)
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    for _ in range(200):
        if select.select([connection.sock], [], [], 0.02)[0]:
            break
        connection.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
    answer = read(connection.getresponse())
    connection.close()
    return answer


def test_a_request_that_does_not_arrive_is_a_408_to_send_again(scene: Scene) -> None:
    def dawdle(path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", scene.envoy.port, timeout=20)
        connection.putrequest("POST", path)
        connection.putheader("content-length", "1000")
        connection.endheaders()
        answer = read(connection.getresponse())
        connection.close()
        return answer

    answers = at_once(dawdle)

    assert {(answer.status, answer.reason) for answer in answers} == {(408, "request_timeout")}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}


def test_what_the_sidecar_says_passes_as_it_is_whatever_its_status(scene: Scene) -> None:
    for status in (400, 413, 503):
        scene.sidecar.denial = answered(status, b'{"mine": true}')
        answer = scene.ask("/v1/messages")

        assert (answer.status, answer.body) == (status, {"mine": True})
        assert "retry-after" not in answer.headers


# --- what the SDKs make of it


def test_the_openai_sdk_reads_code_and_decision(scene: Scene) -> None:
    with (
        openai.OpenAI(base_url=f"{scene.envoy.url}/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.models.list()

    assert (caught.value.code, caught.value.request_id) == ("provider_unavailable", ID)
    assert caught.value.status_code == 503


def test_the_anthropic_sdk_reads_type_and_decision(scene: Scene) -> None:
    with (
        anthropic.Anthropic(base_url=scene.envoy.url, api_key="k", max_retries=0) as client,
        pytest.raises(anthropic.InternalServerError) as caught,
    ):
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "overloaded_error"
    assert caught.value.request_id == ID


def test_the_google_sdk_reads_status_and_message(scene: Scene) -> None:
    client = genai.Client(api_key="k", vertexai=False, http_options=HttpOptions(base_url=scene.envoy.url))
    with pytest.raises(errors.ServerError) as caught:
        client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    client.close()

    assert (caught.value.code, caught.value.status, caught.value.message) == (503, "UNAVAILABLE", GONE)


# --- the same on the oldest Envoy, pasted


def test_the_parts_to_paste_answer_the_same(tmp_path: Path) -> None:
    with running(tmp_path, pasted, "1.38.3") as scene:
        gone = {name: scene.ask(path) for name, path in PATHS.items() if name != "mcp"}
        scene.sidecar.set_headers = REFUSED
        failed = {name: scene.ask(path) for name, path in PATHS.items() if name != "mcp"}

    assert {name: answer.body for name, answer in gone.items()} == {name: BODIES[name] for name in gone}
    assert {answer.reason for answer in failed.values()} == {"policy_unavailable"}
    assert {answer.status for answer in failed.values()} == {503}


# --- Envoy and the sidecar speak alike


# No format claims the one, and IBM's clients show whatever the other says.
ALIKE = [path for path in ASKED if not path.startswith(("/v1/nothing", "/ml/"))]


@pytest.mark.parametrize("path", ALIKE)
def test_envoy_answers_a_path_in_the_words_that_the_sidecar_has_for_it(scene: Scene, path: str) -> None:
    heads = (
        RequestHead(method=method, host="gateway", path=path, headers=ASKED[path][1])
        for method in ("POST", "GET", "DELETE")
    )
    call = next(filter(None, map(classify.claim, heads)))
    what = denial(503, Reason.STORE_UNAVAILABLE, retry_after_ms=1000)
    sidecars = json.loads(FORMATS[call.api].render_denial(what).body)
    envoys = scene.ask(path, **ASKED[path][1]).body

    # Cohere's repeats the decision.
    assert envoys.keys() >= sidecars.keys() - {"id"}
    if isinstance(sidecars.get("error"), dict):
        assert envoys["error"].keys() == sidecars["error"].keys()
