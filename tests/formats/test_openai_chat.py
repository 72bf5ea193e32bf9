import json
from pathlib import Path
from typing import Any

import pytest

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import Call, ParsedRequest
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.strict_json import parse_json
from extproc.model import PromptImage
from tests.formats.calls import claimed, parsed

FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai_chat"
CHAT = OpenAIChat()
CALL = Call(api="openai_chat", operation="chat")
HELLO: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def parse(body: dict[str, Any]) -> ParsedRequest:
    return parsed("/v1/chat/completions", body)


def recorded() -> ParsedRequest:
    return parse(parse_json((FIXTURES / "request.json").read_bytes()))


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    request = recorded().request

    assert (request.api, request.provider, request.operation) == ("openai_chat", "openai", "chat")
    assert request.model == "gpt-4o-mini"
    assert request.models == ("gpt-4o-mini", "openai/gpt-4o-mini", "mistralai/mistral-small")
    assert (request.stream, request.wants_usage_chunk) == (True, False)
    assert (request.choices, request.message_count, request.max_output_tokens) == (3, 4, 400)
    assert request.tools == ("get_weather", "run_sql", "old_style")
    assert request.modalities == ("audio", "file", "image", "text")
    assert request.end_user == "hash-of-user-7"
    assert request.temperature == 1.0
    assert not request.has_state


def test_the_prompt_holds_everything_the_model_reads() -> None:
    prompt = recorded().prompt

    assert [(message.role, message.name) for message in prompt.messages] == [
        ("system", None),
        ("user", "ada"),
        ("assistant", None),
        ("tool", None),
        ("response_format", None),
    ]
    assert prompt.messages[1].text == "Was zeigt das Bild? 🌍"
    assert prompt.messages[2].text == 'get_weather\n{"city":"Bern"}'
    assert prompt.messages[4].text == 'answer\n{"type":"object","properties":{"text":{"type":"string"}}}'
    assert prompt.images == (
        PromptImage(width_px=640, height_px=480, detail="low"),
        PromptImage(width_px=None, height_px=None),
    )
    assert [json.loads(tool).get("name", "") for tool in prompt.tools] == ["", "", "old_style"]


def test_a_bare_body_gets_the_defaults() -> None:
    request = parse(HELLO).request

    assert (request.stream, request.choices, request.max_output_tokens) == (False, 1, None)
    assert (request.end_user, request.temperature, request.wants_usage_chunk) == ("", None, True)
    assert (request.models, request.modalities, request.tools) == (("gpt-4o-mini",), ("text",), ())


def test_null_is_absent() -> None:
    nulls = dict.fromkeys(
        (
            "stream",
            "n",
            "max_tokens",
            "temperature",
            "tools",
            "user",
            "stream_options",
            "response_format",
            "models",
        )
    )

    assert parse(HELLO | nulls) == parse(HELLO)


def test_a_body_that_names_too_many_models_is_refused() -> None:
    """Each is asked about, so their number is what a request costs us."""
    names = [f"m{number}" for number in range(64)]

    assert parse(HELLO | {"model": "m0", "models": names * 2}).request.models == tuple(names)
    with pytest.raises(RequestRefused, match="more than 64 models"):
        parse(HELLO | {"model": "m0", "models": [*names, "m64"]})


def test_a_body_that_holds_too_many_tools_is_refused() -> None:
    """A rule that walks more of them than CEL has patience for would fail."""
    tools = [{"type": "function", "function": {"name": f"t{number}"}} for number in range(2000)]
    functions = [{"name": f"f{number}"} for number in range(48)]

    assert len(parse(HELLO | {"tools": tools, "functions": functions}).request.tools) == 2048
    too_many: tuple[dict[str, Any], ...] = ({"functions": functions * 2}, {"web_search_options": {}})
    for more in too_many:
        with pytest.raises(RequestRefused, match=r"^/tools and /functions must hold at most 2048") as refused:
            parse(HELLO | {"tools": tools, "functions": functions} | more)
        assert (refused.value.status, refused.value.code) == (400, Reason.BODY_MALFORMED)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": None}, "/model "),
        ({"model": ""}, "/model "),
        ({"model": 4}, "/model "),
        ({"model": ["gpt-4o"]}, "/model "),
        ({"model": " gpt-4o"}, "/model "),
        ({"model": "gpt-4o\n"}, "/model "),
        ({"model": "gpt\u200b-4o"}, "/model "),
        ({"model": "m" * 257}, "/model "),
        ({"models": "gpt-4o"}, "/models "),
        ({"models": ["gpt-4o", 7]}, "/models/1 "),
        ({"fallbacks": [{"model": 7}]}, "/fallbacks/0/model "),
        ({"messages": None}, "/messages "),
        ({"messages": "hi"}, "/messages "),
        ({"messages": {"role": "user"}}, "/messages "),
        ({"messages": ["hi"]}, "/messages/0 "),
        ({"messages": [{"content": "hi"}]}, "/messages/0/role "),
        ({"messages": [{"role": 1, "content": "hi"}]}, "/messages/0/role "),
        ({"messages": [{"role": "user", "content": 5}]}, "/messages/0/content "),
        ({"messages": [{"role": "user", "content": {"text": "hi"}}]}, "/messages/0/content "),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "/messages/0/content/0 "),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "/messages/0/content/0/text ",
        ),
        ({"messages": [{"role": "user", "content": "hi", "Content": "ho"}]}, "/messages/0 "),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "TEXT": "ho"}]}]},
            "/messages/0/content/0 ",
        ),
        ({"stream": "true"}, "/stream "),
        ({"stream": 1}, "/stream "),
        ({"stream_options": []}, "/stream_options "),
        ({"stream_options": {"include_usage": "yes"}}, "/stream_options/include_usage "),
        ({"stream_options": {"Include_Usage": True}}, "/stream_options "),
        ({"n": "5"}, "/n "),
        ({"n": 0}, "/n "),
        ({"n": -1}, "/n "),
        ({"n": True}, "/n "),
        ({"n": 1.0}, "/n "),
        ({"n": 2**31}, "/n "),
        ({"max_tokens": 0}, "/max_tokens "),
        ({"max_tokens": -5}, "/max_tokens "),
        ({"max_tokens": True}, "/max_tokens "),
        ({"max_completion_tokens": "9"}, "/max_completion_tokens "),
        ({"temperature": "1"}, "/temperature "),
        ({"temperature": True}, "/temperature "),
        ({"user": 7}, "/user "),
        ({"tools": {"type": "function"}}, "/tools "),
        ({"tools": ["x"]}, "/tools/0 "),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, "/tools/0/function/name "),
        ({"functions": [{"name": []}]}, "/functions/0/name "),
        ({"plugins": "web"}, "/plugins "),
        ({"plugins": [{"id": 5}]}, "/plugins/0/id "),
        ({"plugins": [{"id": "fusion", "Model": "a/b"}]}, "/plugins/0 "),
        ({"search_parameters": "on"}, "/search_parameters "),
        ({"data_sources": [5]}, "/data_sources/0 "),
        ({"tools": [{"type": "function", "Function": {"name": "x"}}]}, "/tools/0 "),
        ({"response_format": "json"}, "/response_format "),
        ({"response_format": {"json_schema": []}}, "/response_format/json_schema "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | {"stream": True} | change)

    is_missing = change == {"messages": None}
    assert caught.value.code == (Reason.UNCLASSIFIED if is_missing else Reason.BODY_MALFORMED)
    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_a_body_of_another_call_is_told_what_is_missing() -> None:
    with pytest.raises(RequestRefused, match="/messages is required"):
        parse({"model": "gpt-4o-mini", "prompt": "Once upon a time"})


@pytest.mark.parametrize(
    ("ceilings", "largest"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 7, "max_completion_tokens": 6}, 7),
        ({"max_tokens": None, "max_completion_tokens": 6}, 6),
    ],
)
def test_the_larger_ceiling_counts(ceilings: dict[str, Any], largest: int) -> None:
    assert parse(HELLO | ceilings).request.max_output_tokens == largest


def test_a_part_of_unknown_kind_is_counted_as_text() -> None:
    body = HELLO | {"messages": [{"role": "user", "content": [{"type": "hologram", "text": "boo"}]}]}

    assert "boo" in parse(body).prompt.messages[0].text


def test_state_kept_by_the_provider_is_noticed() -> None:
    assert parse(HELLO | {"previous_response_id": "resp_1"}).request.has_state


def test_built_in_search_is_a_tool() -> None:
    assert parse(HELLO | {"web_search_options": {}}).request.tools == ("web_search",)


@pytest.mark.parametrize(
    ("change", "tools", "models"),
    [
        ({"plugins": [{"id": "web", "max_results": 3}]}, ("web",), ()),
        ({"plugins": [{"id": "web", "enabled": False}]}, (), ()),
        ({"plugins": [{"id": "fusion", "model": "A/B", "models": ["C/D"]}]}, ("fusion",), ("a/b", "c/d")),
        ({"models": ["openai/gpt-4o:online"]}, ("web",), ("openai/gpt-4o:online",)),
        ({"route": "fallback", "provider": {"order": ["groq"]}}, (), ()),
        ({"search_parameters": {"mode": "auto"}}, ("live_search",), ()),
        ({"search_parameters": {"mode": "off"}}, (), ()),
        ({"data_sources": [{"type": "azure_search", "parameters": {"key": "k"}}]}, ("azure_search",), ()),
        ({"tools": [{"type": "mcp", "server_label": "wiki"}]}, ("mcp", "wiki"), ()),
    ],
)
def test_what_vendors_add_is_seen(
    change: dict[str, Any], tools: tuple[str, ...], models: tuple[str, ...]
) -> None:
    request = parse(HELLO | change).request

    assert (request.tools, request.models) == (tools, ("gpt-4o-mini", *models))


def test_the_keys_of_a_data_source_are_no_prompt() -> None:
    prompt = parse(HELLO | {"data_sources": [{"type": "azure_search", "parameters": {"key": "k"}}]}).prompt

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("user", "hi"),
        ("search", ""),
    ]
    assert prompt.tools == ()


@pytest.mark.parametrize("model", ["@preset/mine", "openai/gpt-4o@preset/mine"])
def test_a_preset_is_state_of_the_router(model: str) -> None:
    assert parse(HELLO | {"model": model}).request.has_state


@pytest.mark.parametrize("body", [{}, {"model": "GPT-4o"}, {"model": None}])
def test_a_deployment_is_the_model_whatever_the_body_says(body: dict[str, Any]) -> None:
    path = "/openai/deployments/My-Dep/chat/completions?api-version=2024-10-21"
    request = parsed(path, {"messages": HELLO["messages"]} | body, host="x.openai.azure.com").request

    assert (request.provider, request.model) == ("azure.ai.openai", "my-dep")
    assert request.models == (("my-dep", "gpt-4o") if body.get("model") else ("my-dep",))


@pytest.mark.parametrize(
    ("host", "path", "is_asked"),
    [
        ("x.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2024-02-01", False),
        (
            "x.openai.azure.com",
            "/openai/deployments/d/chat/completions?api-version=2024-08-01-preview",
            False,
        ),
        ("x.openai.azure.com", "/openai/deployments/d/chat/completions?api-version=2024-09-01-preview", True),
        ("x.openai.azure.com", "/openai/v1/chat/completions?api-version=preview", True),
        ("x.openai.azure.com", "/openai/v1/chat/completions", True),
        ("api.mistral.ai", "/v1/chat/completions", False),
        ("api.groq.com", "/openai/v1/chat/completions", False),
        ("api.perplexity.ai", "/chat/completions", False),
        ("api.deepseek.com", "/chat/completions", True),
    ],
)
def test_usage_is_asked_for_where_that_is_known_and_needed(host: str, path: str, *, is_asked: bool) -> None:
    call = claimed(path, host=host)
    assert call is not None
    body = HELLO | {"stream": True}

    assert (CHAT.ask_for_usage(body, call) is not None) is is_asked
    assert CHAT.parse_request(body, call).request.wants_usage_chunk is not is_asked


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        (
            {"stream_options": {"include_obfuscation": False}},
            {"include_obfuscation": False, "include_usage": True},
        ),
        ({"stream_options": {"include_usage": True}}, None),
    ],
)
def test_a_stream_is_made_to_report_usage(options: dict[str, Any], asked: dict[str, Any] | None) -> None:
    body = HELLO | {"stream": True} | options
    before = json.dumps(body)
    changed = CHAT.ask_for_usage(body, CALL)

    assert changed == (None if asked is None else body | {"stream_options": asked})
    assert json.dumps(body) == before
    assert parse(body).request.wants_usage_chunk is (asked is None)


def test_an_answer_in_one_piece_is_not_asked_for_usage() -> None:
    assert CHAT.ask_for_usage(HELLO, CALL) is None
    assert CHAT.ask_for_usage(HELLO | {"stream": False}, CALL) is None


def test_a_moderator_is_a_model_of_the_request() -> None:
    request = parse(HELLO | {"moderation": {"model": "Omni-Moderation-Latest"}}).request

    assert request.models == ("gpt-4o-mini", "omni-moderation-latest")


@pytest.mark.parametrize(
    "shown",
    [
        {"documents": [{"title": "t", "text": "a document"}]},
        {"chat_template": "a template"},
        {"chat_template_kwargs": {"documents": ["a document"]}},
    ],
)
def test_what_is_put_into_the_prompt_beside_messages_is_counted(shown: dict[str, Any]) -> None:
    texts = [message.text for message in parse(HELLO | shown).prompt.messages]

    assert len(texts) == 2
    assert "a " in texts[1]


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("gateway.example", "/v1/chat/completions"),
        ("api.openai.com", "/v1/chat/completions"),
        ("api.x.ai", "/v1/chat/completions"),
    ],
)
def test_no_version_of_azures_api_spares_others_from_reporting_usage(host: str, path: str) -> None:
    call = claimed(f"{path}?api-version=2023-05-15", host=host)
    assert call is not None

    assert CHAT.ask_for_usage(HELLO | {"stream": True}, call) is not None
