import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Denial, Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.strict_json import parse_json
from extproc.model import Observation, PromptImage, Usage
from tests.formats.calls import claimed, observed, parsed, split_everywhere
from tests.formats.shapes import bodies, read

FIXTURE = Path(__file__).parent.parent / "fixtures" / "ollama" / "chat.ndjson"
LINES = {"content-type": "application/x-ndjson"}
CHAT: dict[str, Any] = {"model": "Llama3", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/api/chat", ("ollama", "chat", "json")),
        ("POST", "/api/generate", ("ollama", "text_completion", "json")),
        ("POST", "/api/embed", ("ollama", "embeddings", "json")),
        ("POST", "/api/embeddings", ("ollama", "embeddings", "json")),
        ("POST", "/api/show", ("ollama", "control", "json")),
        ("POST", "/api/pull", ("ollama", "control", "json")),
        ("DELETE", "/api/delete", ("ollama", "control", "json")),
        ("GET", "/api/tags", ("ollama", "control", "none")),
        ("HEAD", "/api/blobs/sha256:29fd", ("ollama", "control", "none")),
        ("POST", "/api/blobs/sha256:29fd", ("ollama", "control", "opaque")),
        ("GET", "/api/chat", None),
        ("POST", "/api/delete", None),
        ("POST", "/api/web_search", None),
        ("POST", "/api/Chat", None),
    ],
)
def test_a_call_is_its_method_and_path(method: str, path: str, expected: tuple[str, str, str] | None) -> None:
    call = claimed(path, method=method, host="127.0.0.1:11434")

    assert (call and (call.api, call.operation, call.body)) == expected


def test_a_chat_is_read_in_the_words_of_policies() -> None:
    tool_call = {"function": {"name": "find", "arguments": {"q": 1}}}
    body = CHAT | {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "what", "images": ["aGVsbG8="]},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [tool_call]},
            {"role": "tool", "tool_name": "find", "content": "milk"},
        ],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}],
        "format": {"type": "object"},
        "options": {"num_predict": 50, "temperature": 0, "num_ctx": 4096},
        "keep_alive": "5m",
        "think": "high",
    }
    found = parsed("/api/chat", body)
    request = found.request

    assert (request.api, request.provider, request.operation) == ("ollama", "ollama", "chat")
    assert (request.model, request.models, request.stream) == ("llama3", ("llama3",), True)
    assert (request.message_count, request.max_output_tokens, request.temperature) == (4, 50, 0.0)
    assert (request.tools, request.modalities) == (("find",), ("image", "text"))
    assert not request.has_state
    assert [(each.role, each.text) for each in found.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "what"),
        ("assistant", 'hm\nfind\n{"q":1}'),
        ("tool", "milk\nfind"),
        ("format", '{"type":"object"}'),
    ]
    assert found.prompt.images == (PromptImage(width_px=None, height_px=None),)


@pytest.mark.parametrize(
    ("stream", "expected"), [({}, True), ({"stream": None}, True), ({"stream": False}, False)]
)
def test_it_streams_unless_told_not_to(stream: dict[str, Any], *, expected: bool) -> None:
    assert parsed("/api/chat", CHAT | stream).request.stream is expected
    assert parsed("/api/generate", {"model": "m", "prompt": "p"} | stream).request.stream is expected


@pytest.mark.parametrize(("ceiling", "expected"), [(-1, None), (-2, None), (0, None), (1, 1), (None, None)])
def test_a_ceiling_below_one_is_none(ceiling: int | None, expected: int | None) -> None:
    request = parsed("/api/chat", CHAT | {"options": {"num_predict": ceiling}}).request

    assert request.max_output_tokens == expected


def test_everything_a_completion_reads_is_counted() -> None:
    body = {
        "model": "m",
        "system": "s",
        "template": "t",
        "prompt": "p",
        "suffix": "x",
        "context": [1, 2, 3],
        "images": ["aGVsbG8="],
        "raw": True,
        "format": "json",
    }
    found = parsed("/api/generate", body)

    assert [(each.role, each.text) for each in found.prompt.messages] == [("system", "s"), ("", "t\np\nx")]
    assert (found.prompt.tokens, len(found.prompt.images)) == (3, 1)
    assert not found.request.has_state


def test_a_body_without_a_prompt_loads_a_model() -> None:
    found = parsed("/api/generate", {"model": "m", "keep_alive": 0, "context": []})

    assert (found.prompt.messages[0].text, found.request.modalities) == ("", ())


def test_inputs_of_both_embedding_paths_are_counted() -> None:
    many = parsed("/api/embed", {"model": "m", "input": ["a", "b"]})
    one = parsed("/api/embeddings", {"model": "m", "prompt": "c"})

    assert [each.text for each in many.prompt.messages] == ["a", "b"]
    assert [each.text for each in one.prompt.messages] == ["c"]
    assert (many.request.message_count, many.request.stream) == (2, False)


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("llama3", ("llama3",)),
        ("llama3:latest", ("llama3:latest", "llama3")),
        ("library/llama3", ("library/llama3", "llama3")),
        ("registry.ollama.ai/library/llama3:8b", ("registry.ollama.ai/library/llama3:8b", "llama3:8b")),
        ("hf.co/x/y", ("hf.co/x/y",)),
    ],
)
def test_a_model_has_its_short_name_too(name: str, models: tuple[str, ...]) -> None:
    assert parsed("/api/chat", CHAT | {"model": name}).request.models == models


@pytest.mark.parametrize(
    ("path", "method", "body", "models"),
    [
        ("/api/show", "POST", {"model": "A"}, ("a",)),
        ("/api/pull", "POST", {"name": "A"}, ("a",)),
        ("/api/pull", "POST", {"name": "a", "model": "b"}, ("b", "a")),
        ("/api/create", "POST", {"model": "a", "from": "b"}, ("a", "b")),
        ("/api/copy", "POST", {"source": "a", "destination": "b"}, ("a", "b")),
        ("/api/delete", "DELETE", {"model": "a"}, ("a",)),
    ],
)
def test_calls_that_manage_models_name_them(
    path: str, method: str, body: dict[str, Any], models: tuple[str, ...]
) -> None:
    call = claimed(path, method=method)
    assert call is not None
    request = FORMATS["ollama"].parse_request(body, call).request

    assert (request.operation, request.models) == ("control", models)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/api/chat", CHAT | {"model": None}, "/model "),
        ("/api/chat", CHAT | {"messages": None}, "/messages "),
        ("/api/chat", CHAT | {"messages": [{"role": "user", "Content": "x"}]}, "/messages/0 "),
        ("/api/chat", CHAT | {"messages": [{"role": "user", "content": []}]}, "/messages/0/content "),
        ("/api/chat", CHAT | {"messages": [{"role": "user", "images": [5]}]}, "/messages/0/images "),
        (
            "/api/chat",
            CHAT | {"messages": [{"role": "assistant", "tool_calls": [{"Function": {}}]}]},
            "/messages/0/tool_calls/0 ",
        ),
        (
            "/api/chat",
            CHAT | {"messages": [{"role": "assistant", "tool_calls": [{"function": {"NAME": ""}}]}]},
            "/messages/0/tool_calls/0/function ",
        ),
        ("/api/chat", CHAT | {"stream": "no"}, "/stream "),
        ("/api/chat", CHAT | {"format": 5}, "/format "),
        ("/api/chat", CHAT | {"options": {"Num_Predict": 5}}, "/options "),
        ("/api/chat", CHAT | {"options": {"num_predict": 5.5}}, "/options/num_predict "),
        ("/api/chat", CHAT | {"tools": [{"type": "function", "FUNCTION": {}}]}, "/tools/0 "),
        (
            "/api/chat",
            CHAT | {"tools": [{"type": "function", "function": {"Name": "x"}}]},
            "/tools/0/function ",
        ),
        ("/api/generate", {"model": "m", "prompt": ["p"]}, "/prompt "),
        ("/api/generate", {"model": "m", "context": "1"}, "/context "),
        ("/api/generate", {"model": "m", "context": [1.5]}, "/context "),
        ("/api/embed", {"model": "m"}, "/input or /prompt "),
        ("/api/embed", {"model": "m", "input": 0}, "/input "),
        ("/api/embed", {"model": "m", "input": [5]}, "/input "),
        ("/api/pull", {}, "/model "),
        ("/api/create", {"model": "m", "modelfile": "FROM x"}, "/modelfile "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(path: str, body: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize("key", ["Model", "MESSAGES", "Options", "Context", "Suffix", "tool\u017f", "Format"])
def test_a_key_that_go_would_read_is_refused(key: str) -> None:
    with pytest.raises(RequestRefused, match="only in case"):
        parse_json(json.dumps({"model": "m", key: None}).encode())


SEEN = Observation(
    usage=Usage(input_tokens=20, output_tokens=9, cache_read_input_tokens=16),
    finished=True,
    is_legible=True,
    model="qwen3",
    finish_reasons=("stop",),
    output_text='Hm, so.\nGrüße 🌍\nfind{"q":"milk"}',
)


def test_a_stream_is_read_alike_wherever_it_is_cut() -> None:
    data = FIXTURE.read_bytes()
    last_line = data.rstrip(b"\n").rfind(b"\n")

    for place, chunks in enumerate(split_everywhere(data)):
        assert observed("ollama", *chunks, headers=LINES) == SEEN
        assert not observed("ollama", data[: min(place, last_line)], headers=LINES).finished


def test_an_error_may_be_the_last_line() -> None:
    seen = observed("ollama", b'{"response":"Hal","done":false}\n{"error":"out of memory"}\n', headers=LINES)

    assert (seen.error, seen.finished, seen.output_text) == ("error", False, "Hal")


def test_input_that_the_cache_had_may_be_missing() -> None:
    seen = observed("ollama", b'{"model":"m","message":{"content":"x"},"done":true,"eval_count":0}')

    assert seen.usage == Usage(input_tokens=None, output_tokens=0)


def test_embeddings_have_no_output() -> None:
    counted = observed(
        "ollama", b'{"model":"m","embeddings":[[1]],"prompt_eval_count":4}', operation="embeddings"
    )
    uncounted = observed("ollama", b'{"embedding":[1]}', operation="embeddings")

    assert counted.usage == Usage(input_tokens=4, output_tokens=0)
    assert (uncounted.usage, uncounted.finished) == (None, True)


def test_a_denial_is_an_error_string() -> None:
    denial = Denial(status=403, reason=Reason.ACCESS_DENIED, message="No.", decision_id="d-1")
    reply = FORMATS["ollama"].render_denial(denial)

    assert json.loads(reply.body) == {
        "error": "No. (decision d-1)",
        "reason": "access_denied",
        "decision_id": "d-1",
    }


PATHS = st.sampled_from(["/api/chat", "/api/generate", "/api/embed", "/api/pull", "/api/create"])
KEYS = (
    *("model", "name", "from", "messages", "role", "content", "images", "tools", "function", "tool_calls"),
    *("prompt", "context", "format", "options", "num_predict", "input", "stream", "arguments", "Name"),
)


@given(PATHS, bodies(*KEYS))
def test_no_body_raises_anything_but_a_refusal(path: str, body: dict[str, Any]) -> None:
    read(path, body)


@pytest.mark.parametrize("scheme", ["https://", "http://"])
def test_a_model_with_a_scheme_is_the_same_model(scheme: str) -> None:
    body = {"model": f"{scheme}registry.ollama.ai/library/Llama3:latest", "messages": []}

    assert "llama3" in parsed("/api/chat", body).request.models
