import json
from pathlib import Path
from typing import Any

import pytest

from extproc.errors import RequestRefused
from extproc.formats.anthropic.messages import AnthropicMessages
from extproc.formats.base import Call, ParsedRequest
from extproc.formats.strict_json import parse_json
from extproc.model import PromptImage
from tests.formats.calls import parsed

FIXTURES = Path(__file__).parent.parent / "fixtures" / "anthropic_messages"
MESSAGES = AnthropicMessages()
HELLO: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
}


def parse(body: dict[str, Any], path: str = "/v1/messages") -> ParsedRequest:
    return parsed(path, body)


def recorded() -> ParsedRequest:
    return parse(parse_json((FIXTURES / "request.json").read_bytes()))


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    request = recorded().request

    assert (request.api, request.provider, request.operation) == ("anthropic_messages", "anthropic", "chat")
    assert request.models == ("claude-sonnet-4-5", "claude-haiku-4-5")
    assert (request.stream, request.wants_usage_chunk, request.choices) == (True, True, 1)
    assert (request.message_count, request.max_output_tokens, request.temperature) == (3, 2048, 0.5)
    assert request.tools == ("look_up", "web_search", "tickets")
    assert request.modalities == ("file", "image", "text")
    assert request.end_user == "user-7"


def test_a_body_that_names_too_many_models_is_refused() -> None:
    fallbacks = [{"model": f"m{number}"} for number in range(64)]

    with pytest.raises(RequestRefused, match="more than 64 models"):
        parse(HELLO | {"fallbacks": fallbacks})


def test_a_body_that_holds_too_many_tools_is_refused() -> None:
    """A rule that walks more of them than CEL has patience for would fail."""
    tools = [{"name": f"t{number}"} for number in range(2047)]
    servers = [{"type": "url", "name": "s1"}, {"type": "url", "name": "s2"}]

    assert len(parse(HELLO | {"tools": tools, "mcp_servers": servers[:1]}).request.tools) == 2048
    with pytest.raises(RequestRefused, match=r"^/tools and /mcp_servers must hold at most 2048 tools"):
        parse(HELLO | {"tools": tools, "mcp_servers": servers})


def test_the_prompt_holds_everything_the_model_reads() -> None:
    prompt = recorded().prompt

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "What is in these?\nNotes\nBuy milk."),
        ("assistant", 'I should look.\nlook_up\n{"term":"milk"}'),
        ("user", "White liquid."),
    ]
    assert prompt.images == (
        PromptImage(width_px=640, height_px=480),
        PromptImage(width_px=None, height_px=None),
    )
    assert json.loads(prompt.tools[0])["name"] == "look_up"


def test_system_may_be_one_string() -> None:
    assert parse(HELLO | {"system": "Be brief."}).prompt.messages[0].text == "Be brief."


def test_counting_tokens_is_control() -> None:
    request = parse(HELLO, "/v1/messages/count_tokens").request

    assert (request.operation, request.model) == ("control", "claude-sonnet-4-5")


def test_a_block_of_unknown_kind_is_counted_as_text() -> None:
    body = HELLO | {"messages": [{"role": "user", "content": [{"type": "hologram", "aura": "boo"}]}]}

    assert "boo" in parse(body).prompt.messages[0].text


def test_nested_content_is_read() -> None:
    source = {"type": "content", "content": [{"type": "text", "text": "inside"}]}
    blocks = [
        {"type": "document", "source": source},
        {
            "type": "search_result",
            "source": "s",
            "title": "t",
            "content": [{"type": "text", "text": "found"}],
        },
        {"type": "tool_result", "tool_use_id": "x", "content": "plain"},
        {"type": "container_upload", "file_id": "f"},
    ]
    parsed = parse(HELLO | {"messages": [{"role": "user", "content": blocks}], "container": "c"})

    assert parsed.prompt.messages[0].text == "inside\ns\nt\nfound\nplain"
    assert parsed.request.modalities == ("file", "text")
    assert parsed.request.has_state


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": None}, "/model "),
        ({"messages": None}, "/messages "),
        ({"messages": [5]}, "/messages/0 "),
        ({"messages": [{"role": "user", "content": 5}]}, "/messages/0/content "),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": {}}]}]},
            "/messages/0/content/0/text ",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 5}]}]},
            "/messages/0/content/0/content ",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]},
            "/messages/0/content/0/source ",
        ),
        ({"messages": [{"role": "user", "CONTENT": "ho"}]}, "/messages/0 "),
        ({"system": 5}, "/system "),
        ({"system": [{"type": "text", "text": 5}]}, "/system/0/text "),
        ({"max_tokens": -1}, "/max_tokens "),
        ({"max_tokens": "10"}, "/max_tokens "),
        ({"stream": "yes"}, "/stream "),
        ({"metadata": {"user_id": 5}}, "/metadata/user_id "),
        ({"metadata": "me"}, "/metadata "),
        ({"temperature": []}, "/temperature "),
        ({"tools": [{"name": 5}]}, "/tools/0/name "),
        ({"fallbacks": [{"model": " x"}]}, "/fallbacks/0/model "),
        ({"mcp_servers": {}}, "/mcp_servers "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


def test_a_stream_reports_usage_unasked() -> None:
    assert (
        MESSAGES.ask_for_usage(HELLO | {"stream": True}, Call(api="anthropic_messages", operation="chat"))
        is None
    )
    assert not MESSAGES.is_usage_chunk(b'{"type":"message_delta","usage":{"output_tokens":1}}')


@pytest.mark.parametrize("where", ["output_format", "output_config"])
def test_a_schema_of_the_answer_is_part_of_the_prompt(where: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object", "title": "Joke"}}
    shown = wanted if where == "output_format" else {"format": wanted}

    messages = parse(HELLO | {where: shown}).prompt.messages

    assert messages[-1].text == '{"type":"object","title":"Joke"}'
    assert messages[-1].role not in ("user", "assistant", "system")


ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "Claude-Opus-4-7"}


def test_an_advisor_is_a_model_of_the_request_and_speaks_on_top() -> None:
    request = parse(HELLO | {"tools": [ADVISOR | {"max_tokens": 500, "max_uses": 3}]}).request

    assert request.models == ("claude-sonnet-4-5", "claude-opus-4-7")
    assert request.max_output_tokens == 10 + 3 * 500


def test_an_advisor_without_a_ceiling_leaves_the_request_without_one() -> None:
    assert parse(HELLO | {"tools": [ADVISOR]}).request.max_output_tokens is None


def test_a_fallback_may_say_more_than_the_first_model() -> None:
    fallbacks = [{"model": "a", "max_tokens": 90}, {"model": "b"}, {"model": "c", "max_tokens": 5}]
    request = parse(HELLO | {"fallbacks": fallbacks}).request

    assert request.models == ("claude-sonnet-4-5", "a", "b", "c")
    assert request.max_output_tokens == 90


@pytest.mark.parametrize(
    "body", [{"fallbacks": [{"Model": "x"}]}, {"tools": [{**ADVISOR, "model": None, "MODEL": "x"}]}]
)
def test_a_model_in_another_case_is_400(body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | body)

    assert "differs from model only in case" in caught.value.message


def test_a_thread_is_kept_by_the_provider() -> None:
    assert parse(HELLO | {"thread": {"type": "continue", "id": "thread_1"}}).request.has_state


def test_no_output_at_all_is_a_ceiling() -> None:
    assert parse(HELLO | {"max_tokens": 0}).request.max_output_tokens == 0
    retried = HELLO | {"max_tokens": 0, "fallbacks": [{"model": "a", "max_tokens": 9}]}
    assert parse(retried).request.max_output_tokens == 9
