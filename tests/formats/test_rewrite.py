"""Every request that a format reads can be told to generate less, or is refused: none passes as it was."""

import base64
import gzip
import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import CONTROL, NO_OUTPUT, BodyKind, Call, ParsedRequest
from extproc.formats.body import decode_body
from extproc.formats.providers import Provider
from extproc.formats.rewrite import rewrite
from extproc.formats.strict_json import compact_json, parse_json
from extproc.model import RequestHead
from tests.formats import shapes
from tests.formats.calls import claimed, head
from tests.formats.corpus import CORPUS, MISSING, call_of, exchanges

MAX_BYTES = 1 << 25
GATEWAY = "gateway.example:10000"
REPLICATE = "api.replicate.com"
JSON = dict[str, Any]
Row = tuple[str, str, JSON, str]

HI = [{"role": "user", "content": "hi"}]
BLOCKS = [{"role": "user", "content": [{"text": "hi"}]}]
CHAT: JSON = {"model": "m", "messages": HI, "temperature": 0.5}
PROMPT: JSON = {"model": "m", "prompt": "hi"}
CLAUDE: JSON = {"model": "claude-sonnet-4-5", "messages": HI, "max_tokens": 9000}
CONTENTS: JSON = {"contents": [{"parts": [{"text": "hi"}]}]}
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
CONVERSE = "/model/anthropic.claude-sonnet-4-5/converse"
AZURE = "/openai/deployments/d/chat/completions?api-version="
PUBLISHERS = "/v1/projects/p/locations/l/publishers"
OWN = (Provider(name="writer", base_path="/writer", formats=("writer",)),)

# Host, path, a body without a ceiling, and the field that is its ceiling.
ROWS: tuple[Row, ...] = (
    ("api.openai.com", "/v1/chat/completions", CHAT, "max_completion_tokens"),
    (GATEWAY, "/v1/chat/completions", CHAT, "max_completion_tokens"),
    ("api.groq.com", "/openai/v1/chat/completions", CHAT, "max_completion_tokens"),
    ("api.mistral.ai", "/v1/chat/completions", CHAT, "max_tokens"),
    ("api.deepseek.com", "/v1/chat/completions", CHAT, "max_tokens"),
    ("openrouter.ai", "/api/v1/chat/completions", CHAT, "max_tokens"),
    (GATEWAY, "/v1beta/openai/chat/completions", CHAT, "max_tokens"),
    ("r.openai.azure.com", f"{AZURE}2024-10-21", CHAT, "max_completion_tokens"),
    ("r.openai.azure.com", f"{AZURE}2024-06-01", CHAT, "max_tokens"),
    (GATEWAY, "/v1/completions", PROMPT, "max_tokens"),
    (GATEWAY, "/v1/responses", {"model": "m", "input": "hi"}, "max_output_tokens"),
    (GATEWAY, "/v1/threads/t/runs", {"assistant_id": "a", "model": "m"}, "max_completion_tokens"),
    (GATEWAY, "/v1/messages", {"model": "m", "messages": HI}, "max_tokens"),
    (GATEWAY, "/v1/complete", PROMPT, "max_tokens_to_sample"),
    (GATEWAY, GENERATE, CONTENTS, "generationConfig/maxOutputTokens"),
    (
        GATEWAY,
        f"{PUBLISHERS}/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        CONTENTS,
        "generationConfig/maxOutputTokens",
    ),
    (
        GATEWAY,
        f"{PUBLISHERS}/google/models/text-bison:predict",
        {"instances": [{"content": "hi"}]},
        "parameters/maxOutputTokens",
    ),
    (
        GATEWAY,
        f"{PUBLISHERS}/anthropic/models/claude-sonnet-4:rawPredict",
        {"anthropic_version": "vertex-2023-10-16", "messages": HI},
        "max_tokens",
    ),
    (GATEWAY, f"{PUBLISHERS}/mistralai/models/mistral-small:rawPredict", CHAT, "max_tokens"),
    (
        GATEWAY,
        "/v1beta/interactions",
        {"model": "gemini-2.5-flash", "input": "hi"},
        "generation_config/max_output_tokens",
    ),
    ("api.cohere.com", "/v1/chat", {"model": "m", "message": "hi"}, "max_tokens"),
    ("api.cohere.com", "/v1/generate", PROMPT, "max_tokens"),
    ("api.cohere.com", "/v2/chat", {"model": "m", "messages": HI}, "max_tokens"),
    (GATEWAY, CONVERSE, {"messages": BLOCKS}, "inferenceConfig/maxTokens"),
    (GATEWAY, "/model/amazon.nova-pro-v1%3A0/invoke", {"messages": BLOCKS}, "inferenceConfig/maxTokens"),
    (
        GATEWAY,
        "/model/anthropic.claude-3-haiku/invoke",
        {"anthropic_version": "bedrock-2023-05-31", "messages": HI},
        "max_tokens",
    ),
    (GATEWAY, "/model/openai.gpt-oss-20b-1%3A0/invoke", {"messages": HI}, "max_completion_tokens"),
    (GATEWAY, "/model/deepseek.r1-v1%3A0/invoke", {"messages": HI}, "max_tokens"),
    (GATEWAY, "/model/mistral.mistral-7b/invoke", {"prompt": "hi"}, "max_tokens"),
    (GATEWAY, "/model/meta.llama3-8b/invoke", {"prompt": "hi"}, "max_gen_len"),
    (GATEWAY, "/model/ai21.j2-ultra-v1/invoke", {"prompt": "hi"}, "maxTokens"),
    (GATEWAY, "/model/cohere.command-text-v14/invoke", {"prompt": "hi"}, "max_tokens"),
    (GATEWAY, "/model/cohere.command-r-v1/invoke", {"message": "hi"}, "max_tokens"),
    (GATEWAY, "/model/amazon.titan-text/invoke", {"inputText": "hi"}, "textGenerationConfig/maxTokenCount"),
    (GATEWAY, "/generate", {"inputs": "hi"}, "parameters/max_new_tokens"),
    (GATEWAY, "/api/chat", {"model": "m", "messages": HI}, "options/num_predict"),
    (GATEWAY, "/api/generate", PROMPT, "options/num_predict"),
    (GATEWAY, "/writer/chat", CHAT, "max_tokens"),
    (GATEWAY, "/writer/completions", PROMPT, "max_tokens"),
    ("api.mistral.ai", "/v1/conversations", {"model": "m", "inputs": "hi"}, "completion_args/max_tokens"),
    ("api.mistral.ai", "/v1/agents/completions", {"agent_id": "a", "messages": HI}, "max_tokens"),
    (GATEWAY, "/invocations", CHAT, "max_tokens"),
    (GATEWAY, "/invocations", PROMPT, "max_tokens"),
    (GATEWAY, "/inference/v1/generate", {"model": "m", "token_ids": [1]}, "sampling_params/max_tokens"),
    (GATEWAY, "/ml/v1/text/chat", {"model_id": "m", "messages": HI}, "max_tokens"),
    (GATEWAY, "/ml/v1/text/generation", {"model_id": "m", "input": "hi"}, "parameters/max_new_tokens"),
)
every_row = pytest.mark.parametrize(
    ("host", "path", "body", "field"), ROWS, ids=lambda value: str(value)[:40]
)


def call_to(path: str, host: str = GATEWAY) -> Call:
    call = claimed(path, host=host, providers=OWN)
    assert call is not None, path
    return call


def changed(call: Call, body: bytes, **change: Any) -> bytes:
    return rewrite(call, head("/"), body, is_decoded=True, max_body_bytes=MAX_BYTES, **change)


def rewritten(path: str, body: JSON, *, host: str = GATEWAY, **change: Any) -> JSON:
    """The body that goes on in place of this one."""
    return parse_json(changed(call_to(path, host), json.dumps(body).encode(), **change))


def refusal(path: str, body: JSON, *, host: str = GATEWAY, **change: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        rewritten(path, body, host=host, **change)
    return caught.value


def put(body: JSON, field: str, value: int) -> JSON:
    """The body with a number at the end of a path."""
    first, slash, rest = field.partition("/")
    return body | {first: put(body.get(first, {}), rest, value) if slash else value}


def read(call: Call, body: bytes | JSON) -> ParsedRequest:
    whole = parse_json(body) if isinstance(body, bytes) else body
    return FORMATS[call.api].parse_request(whole, call)


def limited(before: ParsedRequest, most: int) -> ParsedRequest:
    """The same request, but for its ceiling."""
    declared = before.request.max_output_tokens
    ceiling = most if declared is None else min(declared, most)
    return replace(before, request=replace(before.request, max_output_tokens=ceiling))


# --- output


@every_row
def test_a_ceiling_is_put_where_there_is_none(host: str, path: str, body: JSON, field: str) -> None:
    assert rewritten(path, body, host=host, max_output_tokens=500) == put(body, field, 500)


@given(row=st.sampled_from(ROWS), declared=st.integers(1, 10_000), most=st.integers(1, 10_000))
def test_a_ceiling_is_lowered_and_never_raised(row: Row, declared: int, most: int) -> None:
    host, path, body, field = row
    lowered = rewritten(path, put(body, field, declared), host=host, max_output_tokens=most)

    assert lowered == put(body, field, min(declared, most))


@every_row
def test_whatever_is_rewritten_is_read_as_the_same_but_for_its_ceiling(
    host: str, path: str, body: JSON, field: str
) -> None:
    call = call_to(path, host)
    for sent in (body, put(body, field, 9000)):
        after = read(call, rewritten(path, sent, host=host, max_output_tokens=500))
        assert after == limited(read(call, sent), 500)
        assert after.request.max_output_tokens == 500


def test_every_format_that_generates_is_in_the_table() -> None:
    """A new format must say where its ceiling is, or stand here because it has none."""
    without = {
        *("openai_embeddings", "openai_moderations", "openai_images", "openai_audio", "openai_realtime"),
        *("openai_files", "rerank", "mcp"),
    }
    elsewhere = {"anthropic_batches", "replicate"}

    in_table = {call_to(path, host).api for host, path, _, _ in ROWS}
    assert in_table | without | elsewhere == FORMATS.keys()
    assert not in_table & (without | elsewhere)


def test_both_names_of_a_ceiling_are_lowered_where_both_are_there() -> None:
    body = CHAT | {"max_tokens": 9000, "max_completion_tokens": 800}

    after = rewritten("/v1/chat/completions", body, max_output_tokens=500)
    assert after == CHAT | {"max_tokens": 500, "max_completion_tokens": 500}
    after = rewritten("/v1/chat/completions", body | {"max_completion_tokens": 100}, max_output_tokens=500)
    assert after == CHAT | {"max_tokens": 500, "max_completion_tokens": 100}


def test_a_ceiling_of_null_is_none() -> None:
    body = CHAT | {"max_tokens": None, "n": 3}

    assert rewritten("/v1/chat/completions", body, max_output_tokens=7) == body | {"max_completion_tokens": 7}
    assert rewritten(GENERATE, CONTENTS | {"generationConfig": None}, max_output_tokens=7) == CONTENTS | {
        "generationConfig": {"maxOutputTokens": 7}
    }


def test_google_s_fields_keep_the_spelling_they_came_in() -> None:
    body = CONTENTS | {"generation_config": {"max_output_tokens": 9000, "temperature": 1}}
    lowered = CONTENTS | {"generation_config": {"max_output_tokens": 500, "temperature": 1}}
    assert rewritten(GENERATE, body, max_output_tokens=500) == lowered

    bare = CONTENTS | {"generation_config": {"temperature": 1}}
    added = CONTENTS | {"generation_config": {"temperature": 1, "maxOutputTokens": 500}}
    assert rewritten(GENERATE, bare, max_output_tokens=500) == added


@pytest.mark.parametrize("endless", [-1, -2, 0])
def test_ollama_s_numbers_for_no_ceiling_are_replaced(endless: int) -> None:
    body = {"model": "m", "messages": HI, "options": {"num_predict": endless, "seed": 1}}

    after = rewritten("/api/chat", body, max_output_tokens=500)
    assert after["options"] == {"num_predict": 500, "seed": 1}


def test_a_ceiling_of_zero_stays_where_it_asks_for_nothing() -> None:
    for path, body in (("/v1/messages", CLAUDE), ("/v1/completions", PROMPT)):
        assert rewritten(path, body | {"max_tokens": 0}, max_output_tokens=500)["max_tokens"] == 0


def test_each_request_of_a_batch_has_its_own_ceiling() -> None:
    def item(**parameters: Any) -> JSON:
        return {"custom_id": "a", "params": {"model": "m", "messages": HI} | parameters}

    body = {"requests": [item(max_tokens=9000), item(max_tokens=3), item()]}
    after = {"requests": [item(max_tokens=500), item(max_tokens=3), item(max_tokens=500)]}
    assert rewritten("/v1/messages/batches", body, max_output_tokens=500) == after


def test_a_batch_of_google_s_is_read_with_and_without_a_list() -> None:
    def batch(requests: Any) -> JSON:
        return {"batch": {"inputConfig": {"requests": {"requests": requests}}}}

    path = "/v1beta/models/gemini-2.5-flash:batchGenerateContent"
    lower = {"request": CONTENTS | {"generationConfig": {"maxOutputTokens": 500}}}
    for many in ([{"request": CONTENTS}], {"request": CONTENTS}):
        after = rewritten(path, batch(many), max_output_tokens=500)
        assert after == batch([lower] if isinstance(many, list) else lower)
    why = refusal(path, {"batch": {"inputConfig": {"fileName": "files/a"}}}, max_output_tokens=500)
    assert why.status == 413


def test_what_a_vendor_calls_its_ceiling_is_lowered_beside_converse_s_own() -> None:
    body: JSON = {
        "messages": BLOCKS,
        "additionalModelRequestFields": {"max_tokens": 9000, "inferenceConfig": {"maxTokens": 9000}},
    }

    after = rewritten(CONVERSE, body, max_output_tokens=500)
    assert after["additionalModelRequestFields"] == {"max_tokens": 500, "inferenceConfig": {"maxTokens": 500}}
    # Bedrock refuses two names for one thing.
    assert "inferenceConfig" not in after


def test_fallbacks_are_limited_as_the_first_model_is() -> None:
    fallbacks = [{"model": "claude-haiku-4-5", "max_tokens": 12_000}, {"model": "claude-opus-4-5"}]

    after = rewritten("/v1/messages", CLAUDE | {"fallbacks": fallbacks}, max_output_tokens=500)
    assert after["max_tokens"] == 500
    assert after["fallbacks"] == [{"model": "claude-haiku-4-5", "max_tokens": 500}, fallbacks[1]]


def test_what_an_advisor_may_say_on_top_cannot_be_limited() -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5", "max_tokens": 100}

    for tool in (advisor, {**advisor, "max_tokens": None}):
        why = refusal("/v1/messages", CLAUDE | {"tools": [tool]}, max_output_tokens=500)
        assert (why.status, why.code) == (413, Reason.REQUEST_EXCEEDS_LIMIT)
        assert "limited to 500 tokens" in why.message
        assert "more places than one" in why.message


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/messages", CLAUDE | {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        (
            CONVERSE,
            {"messages": BLOCKS, "additionalModelRequestFields": {"thinking": {"budget_tokens": 2000}}},
            "additionalModelRequestFields/thinking",
        ),
        ("/api/v1/chat/completions", CHAT | {"thinking": {"budget_tokens": 2000}}, "thinking"),
    ],
)
def test_a_budget_of_thinking_must_leave_room_below_the_ceiling(path: str, body: JSON, pointer: str) -> None:
    """Anthropic answers 400 otherwise; the caller is told which field to lower."""
    why = refusal(path, body, max_output_tokens=2000)
    assert why.status == 413
    assert why.message == (
        "The output of this request must be limited to 2000 tokens a choice, and cannot be: "
        f"its /{pointer}/budget_tokens must be below that."
    )

    assert rewritten(path, body, max_output_tokens=2001)


def test_gemini_s_budget_of_thinking_may_be_anything() -> None:
    """Its thoughts count as output, and it cuts them where the ceiling is."""
    body = CONTENTS | {"generationConfig": {"thinkingConfig": {"thinkingBudget": 8000}}}

    assert rewritten(GENERATE, body, max_output_tokens=500)["generationConfig"]["maxOutputTokens"] == 500


NOWHERE: tuple[Row, ...] = (
    (GATEWAY, "/v1/images/generations", {"model": "m", "prompt": "hi"}, "no field"),
    (GATEWAY, "/v1/realtime/client_secrets", {"session": {"type": "realtime", "model": "m"}}, "no field"),
    (GATEWAY, "/v1/responses/compact", {"model": "m", "input": "hi"}, "no field"),
    (GATEWAY, "/v1/threads/t/runs/r/submit_tool_outputs", {"tool_outputs": []}, "no field"),
    (GATEWAY, "/v1beta/interactions", {"agent": "deep-research", "input": "hi"}, "no field"),
    ("api.cohere.com", "/v1/summarize", {"model": "m", "text": "hi"}, "no field"),
    (REPLICATE, "/v1/predictions", {"version": "owner/m", "input": {"prompt": "hi"}}, "only its model knows"),
    (
        GATEWAY,
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A012345678901%3Aprompt%2FABC/converse",
        {"promptVariables": {}},
        "no field",
    ),
)


@pytest.mark.parametrize(("host", "path", "body", "why"), NOWHERE, ids=lambda value: str(value)[:40])
def test_a_call_that_has_no_field_for_it_is_refused(host: str, path: str, body: JSON, why: str) -> None:
    refused = refusal(path, body, host=host, max_output_tokens=500)

    assert (refused.status, refused.code) == (413, Reason.REQUEST_EXCEEDS_LIMIT)
    assert why in refused.message


def test_a_ceiling_that_replicate_s_caller_named_is_lowered() -> None:
    body: JSON = {"version": "owner/m", "input": {"prompt": "hi", "max_new_tokens": 9000}}

    after = rewritten("/v1/predictions", body, host=REPLICATE, max_output_tokens=500)
    assert after == body | {"input": {"prompt": "hi", "max_new_tokens": 500}}


# --- what cannot be changed at all


SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20261120/eu-west-1/bedrock/aws4_request"}


@pytest.mark.parametrize("change", [{"max_output_tokens": 500}, {"model": "other"}])
def test_a_signed_request_is_not_touched(change: JSON) -> None:
    call, body = call_to(CONVERSE), json.dumps({"messages": BLOCKS}).encode()

    with pytest.raises(RequestRefused, match="it is signed, so that nothing in it can be changed") as caught:
        rewrite(call, head("/", headers=SIGNED), body, is_decoded=False, max_body_bytes=MAX_BYTES, **change)
    assert "AKIA" not in caught.value.message


def test_a_form_a_body_unread_and_none_at_all_are_not_touched() -> None:
    for path, method in (
        ("/v1/audio/transcriptions", "POST"),
        ("/v1/realtime?model=m", "GET"),
        ("/v1/vector_stores", "POST"),
    ):
        call = claimed(path, method=method)
        assert call is not None
        assert call.body is not BodyKind.JSON
        with pytest.raises(RequestRefused) as caught:
            changed(call, b"", max_output_tokens=500)
        assert (caught.value.status, caught.value.code) == (413, Reason.REQUEST_EXCEEDS_LIMIT)


def test_a_compressed_body_goes_on_without_its_encoding() -> None:
    call, headers = call_to("/v1/chat/completions"), {"content-encoding": "gzip"}
    body = gzip.compress(json.dumps(CHAT).encode())

    after = rewrite(
        call,
        head("/", headers=headers),
        body,
        is_decoded=False,
        max_body_bytes=MAX_BYTES,
        max_output_tokens=5,
    )
    assert parse_json(after) == CHAT | {"max_completion_tokens": 5}
    with pytest.raises(RequestRefused, match="accepted 10 bytes"):
        rewrite(
            call, head("/", headers=headers), body, is_decoded=False, max_body_bytes=10, max_output_tokens=5
        )


def test_what_is_written_is_compact_with_its_keys_in_their_order() -> None:
    body = b'{ "z": 1.50, "model": "m",\n "messages": [], "a": "gr\\u00fc\xc3\x9f", "max_tokens": 12345678 }'

    after = changed(call_to("/v1/chat/completions"), body, max_output_tokens=5)
    assert after.decode() == '{"z":1.5,"model":"m","messages":[],"a":"grüß","max_tokens":5}'


# --- the model


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", CHAT, "model"),
        ("/v1/responses", {"model": "m", "input": "hi"}, "model"),
        ("/v1/messages", CLAUDE, "model"),
        ("/v1/embeddings", {"model": "m", "input": "hi"}, "model"),
        ("/api/chat", {"model": "llama3", "messages": HI}, "model"),
        ("/v1beta/interactions", {"model": "models/gemini-2.5-pro", "input": "hi"}, "model"),
        ("/ml/v1/text/chat", {"model_id": "m", "messages": HI}, "model_id"),
    ],
)
def test_another_model_is_named_in_the_body(path: str, body: JSON, field: str) -> None:
    call, after = call_to(path), rewritten(path, body, model="Qwen3:8B")

    assert after == body | {field: "Qwen3:8B"}
    was, now = read(call, body), read(call, after)
    assert now.request.model == "qwen3:8b"
    assert set(now.request.models) == {"qwen3:8b"}
    assert replace(now.request, model="", models=()) == replace(was.request, model="", models=())
    assert now.prompt == was.prompt


def test_model_and_ceiling_change_together() -> None:
    after = rewritten("/v1/messages", CLAUDE, model="claude-haiku-4-5", max_output_tokens=500)

    assert after == CLAUDE | {"model": "claude-haiku-4-5", "max_tokens": 500}


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (GENERATE, CONTENTS, "the path of this call names it"),
        (CONVERSE, {"messages": BLOCKS}, "the path of this call names it"),
        (f"{AZURE}2024-10-21", CHAT, "the path of this call names it"),
        ("/v1/threads/t/runs", {"assistant_id": "a"}, "its body names none"),
        ("/generate", {"inputs": "hi"}, "its body names none"),
        ("/v1/messages/batches", {"requests": [{"params": CLAUDE}]}, "its body names none"),
        ("/v1/chat/completions", CHAT | {"models": ["gpt-5"]}, "it names more models than one"),
        ("/v1/agents/completions", {"agent_id": "a", "model": "m", "messages": HI}, "it names more models"),
        ("/v1/messages", CLAUDE | {"fallbacks": [{"model": "claude-opus-4-5"}]}, "it names more models"),
    ],
)
def test_a_model_that_the_body_does_not_choose_alone_cannot_be_replaced(
    path: str, body: JSON, why: str
) -> None:
    refused = refusal(path, body, model="gpt-4o-mini")

    assert (refused.status, refused.code) == (429, Reason.CAP_REACHED)
    assert refused.message.startswith(f"This request must go to another model, and cannot: {why}")


def test_a_model_that_changes_more_than_itself_is_refused() -> None:
    """OpenRouter searches the web for a model of this name: rules were asked about another request."""
    refused = refusal("/v1/chat/completions", CHAT, model="gpt-4o:online")

    assert "would change its meaning" in refused.message


# --- whatever comes


@given(
    body=shapes.bodies(
        *("model", "messages", "role", "content", "max_tokens", "max_completion_tokens", "n", "fallbacks"),
        *("tools", "thinking", "budget_tokens", "inferenceConfig", "maxTokens", "max_new_tokens"),
        *("additionalModelRequestFields", "generationConfig", "generation_config", "maxOutputTokens"),
        *("contents", "parts", "text", "options", "num_predict", "input", "inputs", "parameters", "prompt"),
    ),
    row=st.sampled_from(ROWS),
    most=st.integers(1, 100),
)
def test_no_body_passes_with_more_than_it_may_ask_for(body: JSON, row: Row, most: int) -> None:
    host, path, whole, _ = row
    call = call_to(path, host)
    for sent in (body, body | whole):
        with suppress(RequestRefused):
            after = changed(call, json.dumps(sent).encode(), max_output_tokens=most)
            assert read(call, after) == limited(read(call, sent), most)


# No tokens are generated there, or none that a request could limit.
SILENT = NO_OUTPUT | {"image_generation", "transcription"}
recorded = pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)


def recorded_bodies() -> list[tuple[str, Call, JSON]]:
    """The recorded requests that generate something, each body once."""
    found: dict[str, tuple[str, Call, JSON]] = {}
    for each in exchanges():
        data = base64.b64decode(each["request_body_b64"] or "")
        with suppress(AssertionError, RequestRefused):
            call = call_of(each)
            if call.operation != CONTROL and call.body is BodyKind.JSON:
                body = decode_body(data, each["request_headers"], max_body_bytes=MAX_BYTES)
                read(call, body)
                found[f"{call.api} {call.provider} {body!r}"] = (each["id"], call, parse_json(body))
    return list(found.values())


def limits(call: Call, body: JSON) -> bool:
    """Whether a recorded request could be limited; if so, it is the same but for that."""
    try:
        after = changed(call, compact_json(body).encode(), max_output_tokens=3)
    except RequestRefused:
        return False
    assert read(call, after) == limited(read(call, body), 3), call
    return True


@recorded
def test_recorded_requests_are_limited_or_refused_and_never_passed() -> None:
    found = [
        (call, read(call, body).request.operation, limits(call, body)) for _, call, body in recorded_bodies()
    ]

    generating = Counter(
        (call.api, is_limited) for call, operation, is_limited in found if operation not in SILENT
    )
    refused = {api: count for (api, is_limited), count in generating.items() if not is_limited}
    # A run that only goes on; budgets of thinking, which leave no room below 3 tokens; inputs that only
    # a model knows.
    assert refused == {"openai_assistants": 1, "anthropic_messages": 2, "replicate": 3}
    assert sum(generating.values()) > 400
    assert not any(is_limited for _, operation, is_limited in found if operation in NO_OUTPUT)


@recorded
def test_recorded_requests_that_name_one_model_get_another() -> None:
    replaced = 0
    for name, call, body in recorded_bodies():
        before = read(call, body)
        with suppress(RequestRefused):
            after = read(call, changed(call, compact_json(body).encode(), model="other"))
            replaced += 1
            assert (after.request.model, after.request.models) == ("other", ("other",)), name
            same = replace(after.request, model=before.request.model, models=before.request.models)
            assert (same, after.prompt) == (before.request, before.prompt), name

    assert replaced > 300


def test_the_head_is_only_asked_for_its_signature_and_its_encoding() -> None:
    sent = RequestHead(method="POST", host="h", path="/elsewhere", headers={"authorization": "Bearer k"})

    body = json.dumps(CHAT).encode()
    call = call_to("/v1/chat/completions")
    after = rewrite(call, sent, body, is_decoded=False, max_body_bytes=MAX_BYTES, max_output_tokens=9)
    assert parse_json(after)["max_completion_tokens"] == 9
