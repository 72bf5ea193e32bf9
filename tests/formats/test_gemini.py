import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats import FORMATS
from extproc.formats.base import BodyKind, Call, ParsedRequest
from extproc.formats.strict_json import parse_json
from extproc.model import PromptImage, PromptMedia
from tests.formats.calls import claimed, parsed

FIXTURE = Path(__file__).parent.parent / "fixtures" / "gemini" / "request.json"
GOOGLE = "generativelanguage.googleapis.com"
KEY = {"x-goog-api-key": "k"}
MODELS = "/v1beta/models/"
GENERATE = MODELS + "gemini-2.5-flash:generateContent"
HELLO: dict[str, Any] = {"contents": [{"parts": [{"text": "hi"}]}]}


def parse(body: dict[str, Any], path: str = GENERATE) -> ParsedRequest:
    return parsed(path, body)


def recorded() -> dict[str, Any]:
    return parse_json(FIXTURE.read_bytes())


@pytest.mark.parametrize(
    ("path", "operation", "model", "stream"),
    [
        (GENERATE, "generate_content", "gemini-2.5-flash", False),
        ("/v1/models/Gemini-2.5-Flash:generateContent", "generate_content", "gemini-2.5-flash", False),
        (MODELS + "gemini-2.5-flash%3AstreamGenerateContent?alt=sse", "generate_content", None, True),
        (MODELS + "gemini-2.5-flash:streamGenerateContent?key=k", "generate_content", None, True),
        (
            "/v1alpha/tunedModels/mine:generateContent",
            "generate_content",
            "tunedmodels/mine",
            False,
        ),
        (MODELS + "gemini-embedding-001:embedContent", "embeddings", "gemini-embedding-001", False),
        (MODELS + "gemini-embedding-001:batchEmbedContents", "embeddings", "gemini-embedding-001", False),
        (MODELS + "gemini-2.5-flash:countTokens", "control", "gemini-2.5-flash", False),
        (MODELS + "gemini-2.5-flash:batchGenerateContent", "batch", "gemini-2.5-flash", False),
        (MODELS + "gemini-embedding-001:asyncBatchEmbedContent", "batch", "gemini-embedding-001", False),
        (MODELS + "imagen-4.0-generate-001:predict", "image_generation", "imagen-4.0-generate-001", False),
        (MODELS + "veo-3.0:predictLongRunning", "image_generation", "veo-3.0", False),
    ],
)
@pytest.mark.parametrize("host", [GOOGLE, "gateway.example"])
def test_the_path_names_method_and_model(
    *, path: str, operation: str, model: str | None, stream: bool, host: str
) -> None:
    call = claimed(path, host=host)

    assert call is not None
    assert (call.api, call.provider, call.operation) == ("gemini", "gcp.gemini", operation)
    assert (call.model, call.stream) == (model or "gemini-2.5-flash", stream)
    assert call.body is BodyKind.JSON


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1beta/models", BodyKind.NONE),
        ("GET", "/v1beta/models/gemini-2.5-flash?fields=name", BodyKind.NONE),
        ("GET", "/v1beta/models/veo-3.0/operations/x", BodyKind.NONE),
        ("GET", "/v1beta/files/x:download?alt=media", BodyKind.NONE),
        ("DELETE", "/v1beta/files/x", BodyKind.NONE),
        ("POST", "/upload/v1beta/files?uploadType=resumable", BodyKind.OPAQUE),
        ("POST", "/upload/v1beta/files?upload_id=x&upload_protocol=resumable", BodyKind.OPAQUE),
        ("PATCH", "/v1beta/cachedContents/x?updateMask=ttl", BodyKind.JSON),
        ("GET", "/v1beta/batches/x", BodyKind.NONE),
        ("POST", "/v1beta/batches/x:cancel", BodyKind.OPAQUE),
    ],
)
def test_what_generates_nothing_is_control(method: str, path: str, body: BodyKind) -> None:
    call = claimed(path, method=method, host=GOOGLE)

    assert call is not None
    assert (call.api, call.operation, call.body) == ("gemini", "control", body)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", GENERATE),
        ("POST", MODELS + "gemini-2.5-flash"),
        ("POST", MODELS + "gemini-2.5-flash:generateAnswer"),
        ("POST", MODELS + "a:b:generateContent"),
        ("POST", MODELS + ":generateContent"),
        ("POST", MODELS + "a%2Fb:generateContent"),
        ("POST", MODELS + "x/gemini-2.5-flash:generateContent"),
        ("POST", "/v2/models/gemini-2.5-flash:generateContent"),
        ("POST", "/v1beta/tunedModels"),
        ("POST", "/v1beta/batches/x:cancel/y"),
        ("POST", "/upload/v1beta/models"),
        ("PUT", "/v1beta/files/x"),
    ],
)
def test_whatever_else_is_nobodys(method: str, path: str) -> None:
    assert claimed(path, method=method, host=GOOGLE) is None


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gemini-2.5-flash", "/v1/files", "/v1/batches/x"])
def test_a_list_below_v1_is_googles_where_google_is_called_or_its_key_is_shown(path: str) -> None:
    for call in (
        claimed(path, method="GET", host=GOOGLE),
        claimed(path, method="GET", headers=KEY),
        claimed(f"{path}?key=k", method="GET"),
    ):
        assert call is not None
        assert call.api == "gemini"

    plain = claimed(path, method="GET")
    assert plain is None or plain.api != "gemini"


@pytest.mark.parametrize(
    "query",
    [
        "alt=sse",
        "alt=json",
        "%24alt=json%3Benum-encoding%3Dint",
        "key=k&pageSize=5&pageToken=x",
        "$prettyPrint=false&quotaUser=u",
        "prettyPrint=true",
    ],
)
def test_parameters_that_change_nothing_pass(query: str) -> None:
    assert claimed(f"{GENERATE}?{query}") is not None


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("fields=candidates", "fields"),
        ("%24fields=candidates", "$fields"),
        ("callback=x", "callback"),
        ("$ct=text/plain", "$ct"),
        ("$outputDefaults=true", "$outputDefaults"),
        ("alt=proto", "alt"),
        ("alt=media", "alt"),
        ("$alt=json%3Benum-encoding%3Dproto", "$alt"),
        ("alt=json&$alt=sse", "$alt"),
        ("ALT=proto", "ALT"),
        ("uploadType=media", "uploadType"),
        ("access_token=x", "access_token"),
    ],
)
def test_parameters_that_change_the_answer_are_refused(query: str, name: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        claimed(f"{GENERATE}?{query}")

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)
    assert f"parameter {name} " in caught.value.message


def test_a_field_mask_is_refused() -> None:
    with pytest.raises(RequestRefused, match="x-goog-fieldmask"):
        claimed(GENERATE, headers={"x-goog-fieldmask": "candidates"})


def test_a_full_body_is_read_in_the_words_of_policies() -> None:
    request = parse(recorded()).request

    assert (request.api, request.provider, request.operation) == ("gemini", "gcp.gemini", "generate_content")
    assert (request.model, request.models) == ("gemini-2.5-flash", ("gemini-2.5-flash",))
    assert (request.stream, request.choices, request.message_count) == (False, 2, 3)
    assert (request.max_output_tokens, request.temperature) == (2048, 0.5)
    assert request.tools == ("look_up", "googleSearch", "codeExecution")
    assert request.modalities == ("audio", "file", "image", "text")
    assert request.has_state


def test_the_prompt_holds_everything_the_model_reads() -> None:
    prompt = parse(recorded()).prompt

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "What is in these?"),
        ("model", 'I should look.\nlook_up\n{"term":"milk"}\nprint(1)\n1'),
        ("user", 'look_up\n{"content":"White liquid."}'),
        ("response_schema", '{"type":"OBJECT"}'),
    ]
    assert prompt.images == (PromptImage(width_px=640, height_px=480),)
    assert prompt.media == (
        PromptMedia(modality="audio", size_bytes=12),
        PromptMedia(modality="file", size_bytes=None),
    )
    assert json.loads(prompt.tools[0])["name"] == "look_up"


@pytest.mark.parametrize(
    "contents",
    ["hi", ["hi"], {"parts": {"text": "hi"}}, [{"parts": "hi"}], [{"parts": ["hi"]}], [[{"text": "hi"}]]],
)
def test_one_item_may_come_without_its_list(contents: Any) -> None:
    (message,) = parse({"contents": contents}).prompt.messages

    assert (message.role, message.text) == ("user", "hi")


def test_either_spelling_of_a_field_is_read() -> None:
    body = HELLO | {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generation_config": {"max_output_tokens": 7, "candidate_count": 3},
        "cached_content": "cachedContents/x",
        "tools": [{"function_declarations": [{"name": "f"}]}],
    }
    request = parse(body).request

    assert (request.max_output_tokens, request.choices) == (7, 3)
    assert (request.has_state, request.tools) == (True, ("f",))


@pytest.mark.parametrize(
    "change",
    [
        {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {"maxOutputTokens": 9}},
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
        {"generationConfig": {"maxOutputTokens": None, "max_output_tokens": 9}},
        {"generationConfig": {"MaxOutputTokens": 9}},
        {"generationConfig": {"max_outputTokens": 9}},
        {"GenerationConfig": {}},
        {"tools": [{"functionDeclarations": [], "function_declarations": [{"name": "f"}]}]},
        {"tools": [{"GoogleSearch": {}}]},
        {"contents": [{"parts": [{"text": "a", "Text": "b"}]}]},
        {"contents": [{"parts": [{"inlineData": {"mimeType": "a/b", "mime_type": "image/png"}}]}]},
    ],
)
def test_a_field_in_two_spellings_or_nearly_spelt_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert (caught.value.status, caught.value.code) == (400, Reason.BODY_MALFORMED)


def test_every_model_that_a_body_names_is_seen() -> None:
    ranking = {"ranking": {"llmRanker": {"modelName": "Ranker"}}}
    body = HELLO | {
        "model": "models/Gemini-2.5-Pro",
        "generationConfig": {"routingConfig": {"manualMode": {"modelName": "gemini-routed"}}},
        "tools": [{"retrieval": {"vertexRagStore": {"rag_retrieval_config": ranking}}}],
    }
    request = parse(body).request

    assert request.model == "gemini-2.5-flash"
    assert request.models == ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-routed", "ranker")
    assert request.tools == ("retrieval",)
    assert parse(HELLO | {"model": "models/gemini-2.5-flash"}).request.models == ("gemini-2.5-flash",)


def test_a_part_of_unknown_kind_is_counted_as_text() -> None:
    parts = [{"hologram": {"aura": "boo"}}, {"thought": True}]

    assert parse({"contents": [{"parts": parts}]}).prompt.messages[0].text == '{"hologram":{"aura":"boo"}}'


def test_an_image_in_the_urls_alphabet_has_its_size() -> None:
    data = "iVBORw0KGgoAAAANSUhEUgAA-_8AAAHgCAYAAAA10dzk"
    body = {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": data}}]}]}

    assert parse(body).prompt.images == (PromptImage(width_px=0xFBFF, height_px=480),)


def test_embeddings_are_read_one_by_one_or_in_a_batch() -> None:
    one = {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "hi"}]}}
    path = MODELS + "gemini-embedding-001:"
    single = parse(one, path + "embedContent")
    many = parse({"requests": [one, {"model": "models/other", "content": "ho"}]}, path + "batchEmbedContents")

    assert (single.request.operation, single.request.message_count) == ("embeddings", 1)
    assert [(message.role, message.text) for message in many.prompt.messages] == [("", "hi"), ("", "ho")]
    assert many.request.models == ("gemini-embedding-001", "other")


def test_predictions_count_what_their_instances_hold() -> None:
    image = {"bytesBase64Encoded": "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA10dzk", "mimeType": "image/png"}
    body = {
        "instances": [
            {"prompt": "A cat.", "image": image},
            {"prompt": "A dog.", "video": {"gcsUri": "gs://x", "mimeType": "video/mp4"}},
        ],
        "parameters": {"sampleCount": 4},
    }
    read = parse(body, MODELS + "imagen-4.0:predict")

    assert (read.request.choices, read.request.message_count) == (4, 2)
    assert read.request.modalities == ("image", "text", "video")
    assert [message.text for message in read.prompt.messages] == ["A cat.", "A dog."]


def test_a_batch_is_the_sum_of_its_requests() -> None:
    def request(model: str, ceiling: int | None) -> dict[str, Any]:
        config = {} if ceiling is None else {"generationConfig": {"maxOutputTokens": ceiling}}
        return {"request": HELLO | {"model": f"models/{model}"} | config, "metadata": {"key": "x"}}

    def batch(*requests: dict[str, Any]) -> ParsedRequest:
        body = {"batch": {"displayName": "b", "input_config": {"requests": {"requests": list(requests)}}}}
        return parse(body, MODELS + "gemini-2.5-flash:batchGenerateContent")

    bounded = batch(request("gemini-2.5-flash", 10), request("gemini-2.5-pro", 20)).request
    assert bounded.models == ("gemini-2.5-flash", "gemini-2.5-pro")
    assert (bounded.choices, bounded.max_output_tokens, bounded.message_count) == (2, 20, 2)
    assert not bounded.has_state
    assert batch(request("gemini-2.5-flash", 10), request("a", None)).request.max_output_tokens is None


def test_a_batch_in_a_file_says_nothing_of_itself() -> None:
    body = {"batch": {"inputConfig": {"fileName": "files/x"}}}
    request = parse(body, MODELS + "gemini-2.5-flash:batchGenerateContent").request

    assert (request.has_state, request.choices, request.max_output_tokens) == (True, 1, None)


def test_what_is_counted_or_cached_is_shown_to_access_rules() -> None:
    inner = HELLO | {"model": "models/gemini-2.5-pro", "tools": [{"urlContext": {}}]}
    counted = parse({"generateContentRequest": inner}, MODELS + "gemini-2.5-flash:countTokens").request
    cached = parse(inner | {"contents": None, "ttl": "300s"}, "/v1beta/cachedContents").request

    assert counted.models == ("gemini-2.5-flash", "gemini-2.5-pro")
    assert (cached.models, cached.tools) == (("gemini-2.5-pro",), ("urlContext",))
    assert counted.operation == "control"


@pytest.mark.parametrize(
    "path", ["/v1beta/cachedContents", "/v1/projects/p/locations/l/cachedContents", "/v1beta/cachedContents/"]
)
def test_what_is_cached_is_input_and_no_output(path: str) -> None:
    body = {"model": "models/gemini-2.5-pro", "systemInstruction": {"parts": [{"text": "a book"}]}}
    found = parse(body, path)

    assert (found.request.operation, found.request.max_output_tokens) == ("generate_content", 0)
    assert [message.text for message in found.prompt.messages] == ["a book"]


@pytest.mark.parametrize(
    "config",
    [
        {"routingConfig": {"autoMode": {"modelRoutingPreference": "PRIORITIZE_QUALITY"}}},
        {"routing_config": {"auto_mode": {}}},
        {"modelConfig": {"featureSelectionPreference": "PRIORITIZE_QUALITY"}},
        {"model_config": {}},
    ],
)
def test_a_router_of_models_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | {"generationConfig": config})

    assert "lets the provider choose another model" in caught.value.message


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, {}),
        (GENERATE, {"contents": None}),
        (GENERATE, {"messages": []}),
        (MODELS + "e:embedContent", HELLO),
        (MODELS + "e:embedContent", {"content": "a", "requests": []}),
        (MODELS + "e:batchEmbedContents", {"requests": [{"model": "models/e"}]}),
        (MODELS + "imagen:predict", {"prompt": "x"}),
        (MODELS + "g:batchGenerateContent", HELLO),
    ],
)
def test_a_body_of_another_call_is_unclassified(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body, path)

    assert (caught.value.status, caught.value.code) == (400, Reason.UNCLASSIFIED)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": 5}, "/model "),
        ({"contents": 5}, "/contents "),
        ({"contents": [5]}, "/contents/0 "),
        ({"contents": [{"role": 5}]}, "/contents/0/role "),
        ({"contents": [{"parts": 5}]}, "/contents/0/parts "),
        ({"contents": [{"parts": [{"text": 5}]}]}, "/contents/0/parts/0/text "),
        ({"contents": [{"parts": [{"inlineData": "x"}]}]}, "/contents/0/parts/0/inlineData "),
        ({"systemInstruction": 5}, "/systemInstruction "),
        ({"generationConfig": []}, "/generationConfig "),
        ({"generationConfig": {"maxOutputTokens": "9"}}, "/generationConfig/maxOutputTokens "),
        ({"generationConfig": {"candidateCount": 0}}, "/generationConfig/candidateCount "),
        ({"generationConfig": {"temperature": "hot"}}, "/generationConfig/temperature "),
        ({"tools": [5]}, "/tools/0 "),
        ({"tools": [{"functionDeclarations": [5]}]}, "/tools/0/functionDeclarations/0 "),
        ({"tools": [{"functionDeclarations": {"name": 5}}]}, "/tools/0/functionDeclarations/name "),
        ({"tools": [{"retrieval": 5}]}, "/tools/0/retrieval "),
    ],
)
def test_a_wrong_type_is_400_and_names_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(HELLO | change)

    assert caught.value.status == 400
    assert caught.value.message.startswith(pointer)


_WORDS = st.sampled_from(
    [*recorded(), "parts", "text", "model", "requests", "content", "batch", "inputConfig", "instances", "x"]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(_WORDS, _ANY, max_size=5),
    st.sampled_from(["generate_content", "embeddings", "prediction", "batch", "control"]),
)
def test_any_object_is_read_or_refused(body: dict[str, Any], operation: str) -> None:
    with suppress(RequestRefused):
        FORMATS["gemini"].parse_request(body, Call(api="gemini", operation=operation, model="m"))


def test_a_stream_reports_usage_unasked() -> None:
    call = Call(api="gemini", operation="generate_content", stream=True)

    assert FORMATS["gemini"].ask_for_usage(HELLO, call) is None
    assert not FORMATS["gemini"].is_usage_chunk(b'{"usageMetadata":{}}')
