"""The rendered configuration: as checked in, valid to every Envoy it names, obeyed by one."""

from __future__ import annotations

import http.client
import importlib
import json
import select
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.route.v3 import VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpFilter,
    LocalReplyConfig,
)

from demo import child, compose
from extproc.envoy_config import (
    EnvoySettings,
    FilterSettings,
    UsageMode,
    render_bootstrap,
    render_filter,
    secret_document,
)
from extproc.errors import SettingsInvalid
from extproc.formats import classify
from extproc.formats.base import Call, Reply
from extproc.model import RequestHead
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from tests.e2e import binaries, stand_ins
from tests.e2e.gateway import Gateway, free_ports, gateway
from tests.e2e.namespace import run_inside
from tests.e2e.portable import render_portable_bootstrap
from tests.formats.test_denials_told import told

ROOT = Path(__file__).parent.parent
GATEWAY_KEY = "sk-of-a-caller"

# The one message newer than envoy-data-plane; Envoy itself checks it below.
UNKNOWN_TO_DATA_PLANE = {"envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager"}
EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


# --- equal to what is checked in


@pytest.mark.parametrize("name", ["envoy.yaml", "filter.yaml"])
def test_the_checked_in_file_is_what_the_templates_render(name: str) -> None:
    expected = compose.checked_in()[name]

    assert (ROOT / "envoy" / name).read_text() == expected, "run `make envoy`"


def test_the_body_limit_is_one_number_everywhere() -> None:
    text = render_bootstrap(EnvoySettings(body_limit_bytes=123457))
    routes = [route for route in ai_routes(text) if "route" in route]

    assert {route["request_body_buffer_limit"] for route in routes} == {123457}
    assert text.count("123457") == len(routes) + 1  # and one buffered body fits the sidecar's connection


# --- valid by Envoy


def problems(bootstrap: str, folder: Path, version: str) -> str:
    path = folder / "envoy.yaml"
    path.write_text(bootstrap)
    command = [str(binaries.envoy(version)), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def test_envoy_accepts_the_checked_in_bootstrap(tmp_path: Path) -> None:
    assert problems((ROOT / "envoy" / "envoy.yaml").read_text(), tmp_path, binaries.NEWEST) == ""


@pytest.mark.parametrize("version", binaries.PORTABLE)
def test_every_supported_envoy_accepts_the_checked_in_snippet(version: str, tmp_path: Path) -> None:
    snippet = (ROOT / "envoy" / "filter.yaml").read_text()

    assert problems(render_portable_bootstrap(EnvoySettings(), snippet), tmp_path, version) == ""


@pytest.mark.parametrize("version", binaries.PORTABLE)
def test_every_supported_envoy_accepts_the_whole_bootstrap_without_native_usage(
    version: str, tmp_path: Path
) -> None:
    assert problems(render_bootstrap(EnvoySettings(usage="stream")), tmp_path, version) == ""


def test_an_envoy_without_native_usage_refuses_its_configuration(tmp_path: Path) -> None:
    said = problems(render_bootstrap(EnvoySettings(usage="native")), tmp_path, "1.39.3")

    assert "response_handling" in said


@pytest.mark.parametrize(
    "upstreams", [("openai",), ("anthropic",), ("gemini", "anthropic"), ("openai", "gemini")]
)
def test_envoy_accepts_real_providers(upstreams: tuple[str, ...], tmp_path: Path) -> None:
    for cluster in ("provider_openai", "provider_anthropic", "provider_gemini"):
        (tmp_path / f"{cluster}.yaml").write_text(secret_document(cluster, "sk"))
    settings = EnvoySettings(
        upstreams=upstreams,
        secrets_dir=str(tmp_path),
        policy_endpoints=("unix:/run/0.sock", "unix:/run/1.sock"),
        otlp_endpoint="https://collector.example",
    )

    assert problems(render_bootstrap(settings), tmp_path, binaries.NEWEST) == ""


# --- valid by a second reading of Envoy's schema


def typed(url: str) -> Any:
    package, _, name = url.removeprefix("type.googleapis.com/").rpartition(".")
    return getattr(importlib.import_module(f"envoy_data_plane.{package}"), name)


def split(node: Any, found: list[dict[str, Any]]) -> Any:
    """Collect every typed message inside `node`, and leave an empty one in its place."""
    if isinstance(node, list):
        return [split(each, found) for each in node]
    if not isinstance(node, dict):
        return node
    # What Envoy writes may have types too, Google's.
    parts = {name: each if name == "json_format" else split(each, found) for name, each in node.items()}
    if parts.get("@type", "").endswith(".FilterConfig"):
        parts["config"] = EMPTY
    if "@type" not in parts:
        return parts
    found.append(parts)
    return EMPTY


def check_typed(top: type[Any], node: Any) -> list[str]:
    found: list[dict[str, Any]] = []
    top.from_dict(split(node, found))
    names = [message["@type"].removeprefix("type.googleapis.com/") for message in found]
    for name, message in zip(names, found, strict=True):
        if name not in UNKNOWN_TO_DATA_PLANE:
            typed(name).from_dict({key: value for key, value in message.items() if key != "@type"})
    return names


def test_every_message_of_the_bootstrap_is_known_to_the_typed_schema() -> None:
    names = check_typed(Bootstrap, yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text()))

    assert "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor" in names
    assert set(names) >= UNKNOWN_TO_DATA_PLANE


def test_every_message_of_the_snippet_is_known_to_the_typed_schema() -> None:
    parts = yaml.safe_load((ROOT / "envoy" / "filter.yaml").read_text())
    checked: list[str] = []
    for each in parts.pop("http_filters"):
        checked += check_typed(HttpFilter, each)
    for each in parts.pop("clusters"):
        checked += check_typed(Cluster, each)
    filters = check_typed(LocalReplyConfig, parts.pop("local_reply_config"))
    checked += check_typed(VirtualHost, parts)

    assert len(checked) == 5
    assert set(filters) == {"envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"}


def test_the_typed_schema_refuses_an_unknown_field() -> None:
    bootstrap = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0]["typed_config"]["failure_mode_alow"] = True

    with pytest.raises(KeyError, match="failure_mode_alow"):
        check_typed(Bootstrap, bootstrap)


# --- what may be asked for


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (EnvoySettings(upstreams=("mistral",)), "known: anthropic, gemini, openai"),
        (EnvoySettings(upstreams=("openai", "openai")), "comes twice"),
        (EnvoySettings(policy_endpoints=("extproc",)), "HOST:PORT"),
        (EnvoySettings(policy_endpoints=("extproc:70000",)), "HOST:PORT"),
        (EnvoySettings(policy_endpoints=()), "at least one"),
        (EnvoySettings(policy_endpoints=("unix:/a", "extproc:1")), "Unix sockets"),
        (EnvoySettings(otlp_endpoint="ftp://x"), "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_words(settings: EnvoySettings, said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        render_bootstrap(settings)


def test_a_hostile_value_stays_one_yaml_string() -> None:
    path = '/tmp/a"\nadmin: {}'

    assert f"path: {path}" not in render_bootstrap(EnvoySettings(access_log_path=path))
    assert yaml.safe_load(render_bootstrap(EnvoySettings(access_log_path=path)))["admin"]["address"]


def ai_routes(bootstrap: str) -> list[dict[str, Any]]:
    listener = yaml.safe_load(bootstrap)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes: list[dict[str, Any]] = manager["route_config"]["virtual_hosts"][0]["routes"]
    return routes


def answered_by(upstreams: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Each route's cluster, and what Envoy makes of the path."""
    return {
        route["name"]: (
            route["route"]["cluster"],
            route["route"].get("prefix_rewrite") or str(route["route"].get("regex_rewrite", "")),
        )
        for route in ai_routes(render_bootstrap(EnvoySettings(upstreams=upstreams)))
        if "route" in route
    }


def test_gemini_alone_takes_its_own_paths_and_those_of_openai() -> None:
    routes = answered_by(("gemini",))

    assert routes["gemini"] == ("provider_gemini", "")
    assert routes["gemini_v1"] == ("provider_gemini", "")
    assert routes["gemini_openai"] == ("provider_openai", "")
    assert routes["openai_chat"] == ("provider_openai", "/v1beta/openai/chat/completions")
    assert routes["openai_models"] == ("provider_openai", "/v1beta/openai/models")
    assert routes["ai_other"] == ("provider_openai", "/v1beta/openai/")


@pytest.mark.parametrize("upstreams", [("openai", "gemini"), ("gemini", "openai")])
def test_beside_openai_gemini_takes_its_own_paths_alone(upstreams: tuple[str, ...]) -> None:
    routes = answered_by(upstreams)

    assert routes["gemini"] == ("provider_gemini", "")
    assert routes["openai_chat"] == ("provider_openai", "")
    assert "/v1/" in routes["gemini_openai"][1]


def test_what_no_real_provider_takes_never_leaves_for_one() -> None:
    routes = answered_by(("openai", "anthropic", "gemini"))
    real = {name for name, (cluster, _) in routes.items() if cluster != "provider_other"}

    assert real == {
        *("openai_chat", "openai_models", "ai_other"),
        *("anthropic_messages", "anthropic_complete", "anthropic_models"),
        *("gemini", "gemini_v1", "gemini_models"),
    }


def test_the_snippet_for_native_usage_has_the_providers_part() -> None:
    stream = yaml.safe_load(render_filter(FilterSettings()))
    native = yaml.safe_load(render_filter(FilterSettings(usage="native")))

    assert "provider_http_filters" not in stream
    assert native["provider_http_filters"][0]["name"] == "envoy.filters.http.ai_protocol_manager"


def test_only_an_envoy_that_reads_usage_tells_of_answers_without_it() -> None:
    """Its log is one more part of the snippet, the same as in the whole bootstrap."""
    stream = yaml.safe_load(render_filter(FilterSettings()))
    native = yaml.safe_load(render_filter(FilterSettings(usage="native")))
    whole = {usage: render_bootstrap(EnvoySettings(usage=usage)) for usage in ("native", "stream")}

    assert "access_log" not in stream
    assert "http_grpc" not in whole["stream"]
    assert native["access_log"] == managers_access_log(whole["native"])[1:]
    assert len(managers_access_log(whole["stream"])) == 1


def managers_access_log(bootstrap: str) -> list[dict[str, Any]]:
    (listener,) = yaml.safe_load(bootstrap)["static_resources"]["listeners"]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    log: list[dict[str, Any]] = manager["access_log"]
    return log


# --- obeyed: a real Envoy, a sidecar that allows everything, a provider that writes down


class Scene:
    """A running gateway between its two stand-ins."""

    def __init__(self, envoy: Gateway, sidecar: stand_ins.Sidecar, provider: stand_ins.Provider) -> None:
        self.envoy = envoy
        self.sidecar = sidecar
        self.provider = provider

    def ask(
        self,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        body: Any = b"{}",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.envoy.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def settings_for(sidecar_port: int, provider_port: int, folder: Path) -> EnvoySettings:
    port, admin_port = free_ports(2)
    return EnvoySettings(
        gateway_port=port,
        admin_port=admin_port,
        policy_endpoints=(f"127.0.0.1:{sidecar_port}",),
        demo_provider=f"127.0.0.1:{provider_port}",
        access_log_path=str(folder / "access.log"),
        body_limit_bytes=2_000_000,
    )


@pytest.fixture(scope="module", params=["native", "stream"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("gateway")
    usage: UsageMode = request.param
    with stand_ins.sidecar() as sidecar, stand_ins.provider() as provider:
        settings = replace(settings_for(sidecar.port, provider.port, folder), usage=usage)
        text = render_bootstrap(settings)
        # Ten seconds are right in production and long in a test.
        text = text.replace("message_timeout: 10s", "message_timeout: 1s")
        with gateway(
            text, port=settings.gateway_port, admin_port=settings.admin_port, folder=folder
        ) as envoy:
            yield Scene(envoy, sidecar, provider)


@pytest.fixture
def scene(running: Scene) -> Scene:
    running.sidecar.requests.clear()
    running.sidecar.denial = None
    running.sidecar.silent = False
    running.sidecar.set_headers = {}
    running.provider.requests.clear()
    return running


BEARER = ("authorization", "Bearer sk-provider-demo")
ANTHROPIC_KEY = ("x-api-key", "sk-provider-demo")
GEMINI_KEY = ("x-goog-api-key", "sk-provider-demo")


@pytest.mark.parametrize(
    ("path", "header", "key"),
    [
        ("/v1/chat/completions", *BEARER),
        ("/v1/messages", *ANTHROPIC_KEY),
        ("/v1/messages/count_tokens", *ANTHROPIC_KEY),
        ("/v1/embeddings", *BEARER),
        ("/v1beta/models/gemini-2.5-flash:generateContent", *GEMINI_KEY),
        ("/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse", *GEMINI_KEY),
        ("/model/us.amazon.nova-micro-v1:0/converse", *BEARER),
        ("/v2/chat", *BEARER),
        ("/api/chat", *BEARER),
    ],
)
def test_a_callers_key_is_replaced_by_the_providers(scene: Scene, path: str, header: str, key: str) -> None:
    carriers = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization")
    status, _, _ = scene.ask(path, headers=dict.fromkeys(carriers, f"Bearer {GATEWAY_KEY}"))
    (_, got) = scene.provider.requests[0]

    assert status == 200
    assert got[header] == key
    assert GATEWAY_KEY not in str(got)


def test_the_sidecar_sees_the_callers_key_and_never_the_providers(scene: Scene) -> None:
    scene.ask(headers={"authorization": f"Bearer {GATEWAY_KEY}", "cookie": "session=1"})
    seen = str(scene.sidecar.requests)

    assert GATEWAY_KEY in seen
    assert "sk-provider-demo" not in seen
    assert "session=1" not in seen


def test_nothing_about_the_caller_or_the_gateway_reaches_the_provider(scene: Scene) -> None:
    scene.ask(headers={"x-forwarded-for": "203.0.113.9", "accept-encoding": "gzip", "x-envoy-mine": "1"})
    (_, got) = scene.provider.requests[0]

    assert set(got) == {"host", "content-length", "x-request-id", "authorization"}


def test_no_x_envoy_header_from_outside_steers_the_gateway(scene: Scene) -> None:
    steering = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-upstream-alt-stat-name": "mine"}
    status, _, _ = scene.ask(headers=steering)
    (_, sent) = (0, scene.sidecar.requests[0].request_headers.headers.headers)

    assert status == 200
    assert not {header.key for header in sent} & steering.keys()


ASKED: dict[str, tuple[str, dict[str, str]]] = {
    "/v1/chat/completions": ("openai_chat", {}),
    "/v1/messages": ("anthropic_messages", {}),
    "/v1/complete": ("anthropic_complete", {}),
    "/v1/models": ("openai_models", {}),
    "/v1/models/x": ("anthropic_models", {"anthropic-version": "2023-06-01"}),
    "/v1/models/y": ("gemini_models", {"x-goog-api-key": "k"}),
    "/v1/models/ft:gpt-4o-mini:acme::generated": ("openai_models", {}),
    "/v1/nothing/known": ("ai_other", {}),
    "/v1/models/gemini-2.5-flash:generateContent": ("gemini_v1", {}),
    "/v1/models/gemini-2.5-flash%3AcountTokens": ("gemini_v1", {}),
    "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse": ("gemini", {}),
    "/v1alpha/interactions": ("gemini", {}),
    "/upload/v1beta/files": ("gemini", {}),
    "/upload/v1/files": ("gemini_v1", {}),
    "/v1beta/openai/chat/completions": ("gemini_openai", {}),
    "/v1/projects/p/locations/l/publishers/google/models/m:generateContent": ("vertex", {}),
    "/v1beta1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict": ("vertex", {}),
    "/v1/projects/p/locations/l/endpoints/openapi/chat/completions": ("vertex_openai", {}),
    "/model/us.amazon.nova-micro-v1:0/converse": ("bedrock", {}),
    "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fabc/converse": ("bedrock_arn", {}),
    "/v1/chat": ("cohere_v1", {}),
    "/v2/chat": ("cohere_v2", {}),
    "/api/v1/chat/completions": ("openrouter", {}),
    "/api/generate": ("ollama", {}),
    "/openai/deployments/mine/chat/completions?api-version=2024-10-21": ("azure", {}),
    "/openai/v1/responses": ("azure", {}),
    "/ml/v1/text/chat?version=2024-05-31": ("watsonx", {}),
    "/invocations": ("model_server", {}),
    "/endpoints/mine/invocations": ("model_server", {}),
    "/inference/v1/generate": ("model_server", {}),
    "/mcp": ("mcp", {}),
}


@pytest.mark.parametrize("path", [path for path, (route, _) in ASKED.items() if route != "ai_other"])
def test_every_route_is_one_of_a_format_that_policies_read(path: str) -> None:
    def call(method: str) -> Call | None:
        head = RequestHead(method=method, host="gateway", path=path, headers=ASKED[path][1])
        return classify.claim(head)

    assert call("POST") or call("GET")


def test_the_provider_is_asked_by_route(scene: Scene) -> None:
    for path, (route, headers) in ASKED.items():
        scene.sidecar.requests.clear()
        scene.ask(path, headers=headers)
        attributes = scene.sidecar.requests[0].attributes["envoy.filters.http.ext_proc"].fields

        assert attributes["xds.route_name"].string_value == route
        assert attributes["source.address"].string_value.startswith("127.0.0.1:")


def reason(body: bytes) -> str:
    """Why, in whichever dialect."""
    (found,) = told(Reply(status=0, body=body))["reason"]
    return found


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/V1/chat/completions", "/metrics", "/api", "/models/x", "/mcpx", "/invocations/x"]
)
def test_what_is_not_ai_is_answered_without_asking_anybody(scene: Scene, path: str) -> None:
    status, headers, body = scene.ask(path)

    assert status == 404
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["code"] == "not_found"
    assert scene.sidecar.requests == []
    assert scene.provider.requests == []


def test_what_callers_ask_about_themselves_is_answered_by_the_sidecar_or_nobody(scene: Scene) -> None:
    passed, _, body = scene.ask("/ai-policy/usage?by=model", method="GET", body=None)
    asked = scene.sidecar.kinds()[0]
    scene.sidecar.denial = denial(200, b'{"mine": true}')
    answered, _, answer = scene.ask("/ai-policy/decisions/1", method="GET", body=None)
    posted, _, _ = scene.ask("/ai-policy/usage")

    assert (passed, json.loads(body)["error"]["code"], asked) == (
        503,
        "questions_unanswered",
        "request_headers",
    )
    assert (answered, answer) == (200, b'{"mine": true}')
    assert posted == 404
    assert scene.provider.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/x/../v1//chat/completions",
        "/%761/chat/completions",
        "//v1/chat/completions",
        "/v1/models/..;/chat/completions",
    ],
)
def test_another_spelling_of_an_ai_path_does_not_slip_past_the_policy(scene: Scene, path: str) -> None:
    status, _, _ = scene.ask(path)

    assert status == 200
    assert scene.sidecar.kinds()[0] == "request_headers"
    assert scene.provider.requests[0][0] == "/v1/chat/completions"


ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fab12"


@pytest.mark.parametrize(
    "path",
    [
        f"/model/{ARN}/converse",
        f"/model/{ARN.lower().replace('%3a', ':')}/converse-stream",
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
    ],
)
def test_the_name_of_a_bedrock_model_arrives_as_it_was_written(scene: Scene, path: str) -> None:
    status, _, _ = scene.ask(path)
    sent = scene.sidecar.requests[0].request_headers.headers.headers

    assert status == 200
    assert [header.raw_value.decode() for header in sent if header.key == ":path"] == [path]
    assert scene.provider.requests[0][0] == path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat%2fcompletions",
        "/v1/x%2F..%2Fchat/completions",
        "/v1/x%5C..%5Cchat/completions",
        "/v1/chat/completions;x=1",
        "/v1/models/..%3b/chat/completions",
        "/v1/%252e%252e/chat/completions",
        "/model/..%2Fv1%2Fchat/converse",
        "/model/a%2F..%2F..%2Fv1/converse",
        "/model/a%2F%2Fb/converse",
        "/model/a%2F.%2Fb/converse",
        "/model/%2Fb/converse",
        "/model/b%2F/converse",
        f"/model/{ARN}%2F../converse",
        f"/model/{ARN}/converse%2F..",
        f"/v1/models/{ARN}",
    ],
)
def test_a_path_with_two_readings_is_refused(scene: Scene, path: str) -> None:
    status, headers, body = scene.ask(path)

    assert status == 400
    assert headers["content-type"] == "application/json"
    assert reason(body) == "path_ambiguous"
    assert scene.sidecar.requests == []
    assert scene.provider.requests == []


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1beta/openai/chat/completions", "/v1/chat/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        (
            "/openai/deployments/mine/embeddings?api-version=2024-10-21",
            "/v1/embeddings?api-version=2024-10-21",
        ),
        ("/openai/v1/responses", "/v1/responses"),
        ("/openai/responses", "/v1/responses"),
        ("/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_demo_provider_is_asked_for_openais_api_at_one_place(scene: Scene, path: str, asked: str) -> None:
    status, _, _ = scene.ask(path)

    assert status == 200
    assert scene.provider.requests[0][0] == asked


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/realtime", "/openai/realtime", "/mcp", "/v1beta/x"]
)
def test_a_websocket_on_an_ai_path_is_refused_at_once(scene: Scene, path: str) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    status, headers, body = scene.ask(path, method="GET", body=None, headers=upgrade)

    assert status == 400
    assert headers["content-type"] == "application/json"
    assert reason(body) == "upgrade_not_supported"
    assert scene.sidecar.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"upgrade": "websocket"},
        {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"},
    ],
)
def test_an_upgrade_header_that_asks_for_no_upgrade_is_an_ordinary_request(
    scene: Scene, headers: dict[str, str]
) -> None:
    assert scene.ask(headers=headers)[0] == 200
    assert scene.sidecar.kinds()[:2] == ["request_headers", "request_body"]


def test_the_sidecar_gets_no_message_that_it_does_not_need(scene: Scene) -> None:
    scene.ask()
    messages = ["request_headers", "request_body", "response_headers"]
    usage_is_native = "response_trailer_mode: SEND" in (scene.envoy.folder / "envoy.yaml").read_text()

    assert scene.sidecar.kinds() == messages + (["response_trailers"] if usage_is_native else [])


def test_native_usage_survives_callers_that_hang_up_at_the_last_byte(scene: Scene) -> None:
    """With a content-length they hang up before Envoy has handed the usage on, and some of it is lost."""
    for _ in range(30):
        scene.ask()
    kinds = scene.sidecar.kinds()
    usage_is_native = "response_trailer_mode: SEND" in (scene.envoy.folder / "envoy.yaml").read_text()

    assert kinds.count("response_trailers") == (30 if usage_is_native else 0)
    assert kinds.count("response_headers") == 30


def test_a_denial_of_the_sidecar_passes_as_it_is(scene: Scene) -> None:
    scene.sidecar.denial = denial(503, b'{"mine": true}')
    status, headers, body = scene.ask()

    assert (status, headers["content-type"], body) == (503, "application/json", b'{"mine": true}')
    assert "retry-after" not in headers
    assert scene.provider.requests == []
    assert scene.sidecar.kinds() == ["request_headers"]


def denial(code: int, body: bytes) -> pb.ImmediateResponse:
    answer = pb.ImmediateResponse(
        status=pb.HttpStatus(code=code),
        body=body,
        details="ai_policy_denied[Kind/name]",
    )
    option = answer.headers.set_headers.add()
    option.header.key = "content-type"
    option.header.raw_value = b"application/json"
    return answer


def test_a_silent_sidecar_is_a_503_that_clients_retry(scene: Scene) -> None:
    scene.sidecar.silent = True
    status, headers, body = scene.ask()
    scene.sidecar.silent = False

    assert status == 503
    assert headers["retry-after"] == "1"
    assert b"policy_unavailable" in body
    assert scene.provider.requests == []


def test_a_header_that_the_sidecar_must_not_set_fails_the_request(scene: Scene) -> None:
    scene.sidecar.set_headers = {"x-envoy-upstream-rq-timeout-ms": "1"}
    status, _, body = scene.ask()

    assert status == 503
    assert b"policy_unavailable" in body
    assert scene.provider.requests == []


def test_a_body_over_the_limit_is_refused_before_the_provider(scene: Scene) -> None:
    """Sent as long as nobody answers: the refusal closes the connection, which would swallow itself."""
    connection = http.client.HTTPConnection("127.0.0.1", scene.envoy.port, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    for _ in range(200):
        if select.select([connection.sock], [], [], 0.02)[0]:
            break
        connection.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()

    assert answer.status == 413
    assert answer.headers["content-type"] == "application/json"
    assert b"request_too_large" in body
    assert scene.provider.requests == []


def test_a_body_of_the_limit_passes_whole(scene: Scene) -> None:
    assert scene.ask(body=b"x" * 2_000_000)[0] == 200
    assert scene.provider.requests[0][1]["content-length"] == "2000000"


def test_the_access_log_tells_the_decision_and_never_the_query(scene: Scene) -> None:
    scene.ask("/v1/only-here?key=sk-secret")
    child.wait_until(
        lambda: any(each["route"] == "ai_other" for each in scene.envoy.access_log()[-1:]),
        what="its entry in the access log",
        children=[scene.envoy.process],
        timeout_s=15,
    )
    entry = scene.envoy.access_log()[-1]
    timings = entry["ai_policy"]

    assert (entry["decision_id"], entry["effect"], entry["policy"]) == ("d-1", "allow", "Kind/name")
    assert entry["path"] == "/v1/only-here"
    assert "sk-secret" not in str(entry)
    assert isinstance(timings, dict)
    assert timings["request_header_latency_us"] > 0


def test_envoys_admin_neither_shows_nor_changes_the_configuration(scene: Scene) -> None:
    for path in ("/config_dump", "/quitquitquit", "/logging?level=trace"):
        connection = http.client.HTTPConnection("127.0.0.1", scene.envoy.admin_port, timeout=5)
        connection.request("POST", path)

        assert connection.getresponse().status == 403
        connection.close()


# --- obeyed, when something is missing


def one_answer(settings: EnvoySettings, text: str, folder: Path) -> tuple[int, dict[str, str], bytes]:
    with gateway(text, port=settings.gateway_port, admin_port=settings.admin_port, folder=folder) as envoy:
        return Scene(envoy, stand_ins.Sidecar(), stand_ins.Provider()).ask()


def test_without_the_sidecar_nothing_passes(tmp_path: Path) -> None:
    with stand_ins.provider() as provider:
        settings = settings_for(free_ports(1)[0], provider.port, tmp_path)
        status, headers, body = one_answer(settings, render_bootstrap(settings), tmp_path)

        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"policy_unavailable" in body
        assert provider.requests == []


def test_an_unreachable_provider_is_said_to_be_one(tmp_path: Path) -> None:
    with stand_ins.sidecar() as sidecar:
        settings = settings_for(sidecar.port, free_ports(1)[0], tmp_path)
        status, headers, body = one_answer(settings, render_bootstrap(settings), tmp_path)

        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"provider_unavailable" in body


def test_a_missing_provider_key_is_the_operators_fault_not_the_callers(tmp_path: Path) -> None:
    with stand_ins.sidecar() as sidecar, stand_ins.provider() as provider:
        settings = replace(settings_for(sidecar.port, provider.port, tmp_path), demo_provider_key="")
        status, headers, body = one_answer(settings, render_bootstrap(settings), tmp_path)

        assert status == 503
        assert b"provider_key_missing" in body
        assert "retry-after" not in headers
        assert provider.requests == []


def test_a_sidecar_process_that_died_is_left_out(tmp_path: Path) -> None:
    with stand_ins.sidecar() as sidecar, stand_ins.provider() as provider:
        settings = settings_for(sidecar.port, provider.port, tmp_path)
        dead = f"127.0.0.1:{free_ports(1)[0]}"
        settings = replace(settings, policy_endpoints=(*settings.policy_endpoints, dead))
        with gateway(
            render_bootstrap(settings),
            port=settings.gateway_port,
            admin_port=settings.admin_port,
            folder=tmp_path,
        ) as envoy:
            scene = Scene(envoy, sidecar, provider)

            assert [scene.ask()[0] for _ in range(20)] == [200] * 20


def test_a_sidecar_on_a_unix_socket_is_reached(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    with stand_ins.sidecar(address), stand_ins.provider() as provider:
        settings = replace(settings_for(1, provider.port, tmp_path), policy_endpoints=(address,))

        assert one_answer(settings, render_bootstrap(settings), tmp_path)[0] == 200


def test_real_providers_are_reached_as_themselves_with_their_keys(tmp_path: Path) -> None:
    """By TLS, name and path, and with a key that may change while Envoy runs."""
    seen = run_inside("tests.e2e.tls_native", tmp_path)
    google = "generativelanguage.googleapis.com"
    asked = {
        "openai": [("/v1/chat/completions", "api.openai.com", "authorization", "Bearer first-key")],
        "anthropic": [("/v1/messages", "api.anthropic.com", "x-api-key", "first-key")],
        "gemini": [
            ("/v1beta/models/gemini-2.5-flash:generateContent", google, "x-goog-api-key", "first-key"),
            ("/v1beta/openai/chat/completions", google, "authorization", "Bearer first-key"),
        ],
    }
    for name, expected in asked.items():
        assert seen[name]["status"] == 200
        for (path, host, header, key), (got_path, got) in zip(expected, seen[name]["got"], strict=True):
            assert (got_path, got["host"], got[header]) == (path, host, key)
            assert "sk-of-a-caller" not in str(got)
    assert seen["impostor"] == 503, "a provider with somebody else's certificate was believed"


@pytest.mark.parametrize("version", binaries.PORTABLE)
def test_the_snippet_protects_an_envoy_that_was_already_there(version: str, tmp_path: Path) -> None:
    with stand_ins.sidecar() as sidecar, stand_ins.provider() as provider:
        settings = settings_for(sidecar.port, provider.port, tmp_path)
        snippet = render_filter(FilterSettings(policy_endpoints=settings.policy_endpoints))
        with gateway(
            render_portable_bootstrap(settings, snippet),
            port=settings.gateway_port,
            admin_port=settings.admin_port,
            folder=tmp_path,
            version=version,
        ) as envoy:
            scene = Scene(envoy, sidecar, provider)
            allowed = scene.ask()[0]
            sidecar.denial = denial(403, b"{}")
            denied = scene.ask()[0]
            upgrade = {"connection": "upgrade", "upgrade": "websocket"}
            upgraded = scene.ask(method="GET", body=None, headers=upgrade)[0]

        assert (allowed, denied, upgraded) == (200, 403, 400)
        assert len(provider.requests) == 1
