import pytest

from extproc.formats import FORMATS
from extproc.formats.classify import dialect
from extproc.model import RequestHead
from tests.formats.calls import claimed

ANTHROPIC = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("POST", "/v1/chat/completions", {}, ("openai_chat", "chat")),
        ("POST", "/v1/chat/completions/", {}, ("openai_chat", "chat")),
        ("POST", "/v1/chat/completions?x=%2F..", {}, ("openai_chat", "chat")),
        ("POST", "/v1/chat/completions?x=1&x=2", {}, None),
        ("POST", "/v1/chat/completions?X=1&x=2", {}, None),
        ("POST", "/v1/chat/completions?$httpMethod=GET", {}, None),
        ("POST", "/v1/chat%5Fcompletions", {}, None),
        ("POST", "/v1/%63hat/completions", {}, ("openai_chat", "chat")),
        ("GET", "/v1/models", {}, ("openai_chat", "control")),
        ("GET", "/v1/models/ft%3Agpt-4o:org::id", {}, ("openai_chat", "control")),
        ("GET", "/v1/models", ANTHROPIC, ("anthropic_messages", "control")),
        ("GET", "/v1/models/claude-sonnet-4-5", ANTHROPIC, ("anthropic_messages", "control")),
        ("POST", "/v1/messages", {}, ("anthropic_messages", "chat")),
        ("POST", "/v1/messages?beta=true", ANTHROPIC, ("anthropic_messages", "chat")),
        ("POST", "/v1/messages/count_tokens", {}, ("anthropic_messages", "control")),
        (
            "OPTIONS",
            "/v1/messages",
            {"access-control-request-method": "POST"},
            ("anthropic_messages", "control"),
        ),
        ("OPTIONS", "/v1/messages", {}, None),
        ("GET", "/v1/chat/completions", {}, None),
        ("post", "/v1/chat/completions", {}, None),
        ("DELETE", "/v1/models/x", {}, None),
        ("POST", "/v1/models", {}, None),
        ("POST", "/v1/messages/batches", {}, ("anthropic_batches", "batch")),
        ("POST", "/V1/chat/completions", {}, None),
        ("POST", "/v1", {}, None),
        ("POST", "/v1/", {}, None),
        ("POST", "/v1/chat/completions//", {}, None),
        ("POST", "/x/v1/chat/completions", {}, None),
        ("POST", "/invocations", {}, ("vllm", "chat")),
        ("POST", "v1/chat/completions", {}, None),
        ("POST", "http://host/v1/chat/completions", {}, None),
        ("POST", "", {}, None),
    ],
)
def test_a_call_is_its_method_and_exact_path(
    method: str, path: str, headers: dict[str, str], expected: tuple[str, str] | None
) -> None:
    call = claimed(path, method=method, headers=headers)

    assert (None if call is None else (call.api, call.operation)) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/chat/completions/..",
        "/v1/chat/completions/.",
        "/v1//chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions;x=1",
        "/v1/models/..;/chat/completions",
        "/v1/chat\\completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%2fcompletions",
        "/v1/chat%5Ccompletions",
        "/v1/%2e%2e/v1/chat/completions",
        "/v1/chat%252Fcompletions",
        "/v1/chat/completions%00",
        "/v1/chat/completions%0a",
        "/v1/chat/completions%3Bx",
        "/v1/chat/completions%",
        "/v1/chat/completions%zz",
        "/v1/models/%ff",
        "/v1/models/é",
        "/v1/models/a b",
        "/v1/models/a#b",
        "/v1/models/a\n",
        "/model/us.amazon.nova-micro-v1:0%2F..%2Fo1-pro/converse",
        "/model/a%2f.%2Fb/converse",
        "/model/a%2F%2Fb/converse",
        "/model/..%2Fb/converse",
        "/model/%2Fb/converse",
        "/model/b%2F/converse",
        "/model/b%2F../converse",
        "/model/b/converse%2F",
        "/model/b/converse%2F..",
    ],
)
def test_a_path_with_two_readings_is_nobodys(path: str) -> None:
    assert claimed(path) is None
    assert claimed(path, method="GET") is None


@pytest.mark.parametrize("header", ["x-http-method-override", "x-http-method", "x-method-override"])
def test_a_method_override_makes_a_call_nobodys(header: str) -> None:
    assert claimed("/v1/chat/completions", headers={header: "GET"}) is None


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/v1/messages/batches", {}, "anthropic_messages"),
        ("/v1/messages?beta=true", {"authorization": "Bearer x"}, "anthropic_messages"),
        ("/v1/chat/nonsense", ANTHROPIC, "openai_chat"),
        ("/unknown", ANTHROPIC, "anthropic_messages"),
        ("/unknown", {"x-api-key": "x"}, "anthropic_messages"),
        ("/unknown", {"authorization": "Bearer x"}, "openai_chat"),
        ("", {}, "openai_chat"),
    ],
)
def test_an_error_speaks_the_dialect_of_path_then_headers(
    path: str, headers: dict[str, str], name: str
) -> None:
    assert dialect(RequestHead(method="POST", host="h", path=path, headers=headers)).name == name


def test_the_registry_is_keyed_by_name() -> None:
    assert all(name == each.name for name, each in FORMATS.items())


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/{}:generateContent",
        "/v1/projects/p/locations/l/endpoints/{}:predict",
        "/openai/deployments/{}/chat/completions",
        "/ml/v1/deployments/{}/text/chat",
        "/v1/projects/p/locations/l/publishers/mistralai/models/{}:rawPredict",
    ],
)
def test_a_model_in_a_path_is_a_name_or_nobodys(path: str) -> None:
    """It ends up in rules, counters, spans and messages."""
    assert claimed(path.format("m" * 200)) is not None
    for name in ("m" * 257, "m%C2%85m", "m%E2%80%AEm", "m%C2%A0m"):
        assert claimed(path.format(name)) is None, name


def test_a_host_longer_than_dns_allows_is_nobodys() -> None:
    """Hosts are remembered."""
    assert claimed("/v1/chat/completions", host="h" * 253 + ":10000") is not None
    assert claimed("/v1/chat/completions", host="h" * 254) is None
