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
from extproc.formats.base import ParsedRequest
from extproc.formats.openai.batch_file import MAX_LINES
from extproc.model import Observation, Prompt
from tests.formats.calls import claimed, observed, parsed
from tests.formats.forms import parsed_form
from tests.formats.shapes import bodies, read

FIXTURES = Path(__file__).parent.parent / "fixtures/openai_files"
API = "openai_files"
CANARY = "my-secret-plan"


def upload(content: bytes, purpose: str = "batch", **options: Any) -> ParsedRequest:
    files = {"file": ("requests.jsonl", content, "application/jsonl")}
    return parsed_form("/v1/files", data={"purpose": purpose}, files=files, **options)


def line(url: Any = "/v1/chat/completions", body: Any = None, **changes: Any) -> bytes:
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    wrapped = {"custom_id": "a", "method": "POST", "url": url, "body": chat if body is None else body}
    return json.dumps(wrapped | changes).encode() + b"\n"


def refused(content: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        upload(content)
    assert CANARY not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/v1/files", "batch"),
        ("GET", "/v1/files", "control"),
        ("GET", "/v1/files/file-1/content", "control"),
        ("DELETE", "/v1/files/file-1", "control"),
        ("POST", "/v1/files/file-1", None),
        ("POST", "/v1/batches", "batch"),
        ("GET", "/v1/batches/batch_1", "control"),
        ("POST", "/v1/batches/batch_1/cancel", "control"),
        ("POST", "/v1/batches/batch_1", None),
        ("POST", "/v1/uploads", "control"),
        ("POST", "/v1/uploads/upload_1/parts", "control"),
        ("POST", "/v1/uploads/upload_1/complete", "control"),
        ("POST", "/v1/fine_tuning/jobs", "fine_tuning"),
        ("POST", "/v1/fine_tuning/jobs/ftjob-1/cancel", "control"),
        ("POST", "/v1/fine_tuning/alpha/graders/validate", "control"),
        ("POST", "/v1/fine_tuning/alpha/graders/run", None),
        ("POST", "/v1/containers", "execute_tool"),
        ("POST", "/v1/containers/cntr_1/files", "control"),
        ("GET", "/v1/evals", "control"),
        ("POST", "/v1/evals", "control"),
        ("POST", "/v1/evals/eval_1/runs", None),
        ("POST", "/v1/batches/a%2Fcancel", None),
        ("PUT", "/v1/files", None),
        ("POST", "/openai/files?api-version=2024-10-21", "batch"),
    ],
)
def test_only_batches_spend_and_what_generates_unseen_is_nobodys(
    method: str, path: str, operation: str | None
) -> None:
    call = claimed(path, method=method)

    assert (None if call is None else (call.api, call.operation)) == (operation and (API, operation))


def test_anthropics_files_are_not_openais() -> None:
    call = claimed("/v1/files", headers={"anthropic-version": "2023-06-01"})

    assert call is None or call.api != API


def test_a_batch_is_all_its_requests() -> None:
    found = upload((FIXTURES / "batch.jsonl").read_bytes())

    request = found.request
    assert (request.api, request.operation, request.provider) == (API, "batch", "openai")
    assert request.model == "gpt-4o-mini"
    assert request.models == ("gpt-4o-mini", "gpt-5", "text-embedding-3-small")
    assert (request.choices, request.message_count) == (3, 3)
    assert request.max_output_tokens == 2000
    assert request.tools == ("get_weather",)
    assert request.modalities == ("text",)
    text = " ".join(message.text for message in found.prompt.messages)
    for said in ("Hello world!", "Weather?", "one", "two"):
        assert said in text
    assert len(found.prompt.tools) == 1


def test_choices_of_lines_add_up_and_one_open_end_opens_all() -> None:
    chat = {"model": "m", "messages": [], "n": 4}

    request = upload(line() + b"\n  \n" + line(body=chat)).request

    assert (request.choices, request.max_output_tokens) == (5, None)


def test_a_batch_of_embeddings_has_no_output() -> None:
    request = upload(line("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"})).request

    assert request.max_output_tokens == 0


def test_azures_urls_and_deployments_are_read() -> None:
    content = line("/chat/completions")
    files = {"file": ("a.jsonl", content)}

    request = parsed_form(
        "/openai/files?api-version=2024-10-21",
        host="res.openai.azure.com",
        data={"purpose": "batch"},
        files=files,
    ).request

    assert (request.provider, request.models) == ("azure.ai.openai", ("gpt-4o-mini",))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"{\n", id="no JSON"),
        pytest.param(b"[]\n", id="no object"),
        pytest.param(line()[:-3], id="cut"),
        pytest.param(line().rstrip() + line(), id="two in a line"),
        pytest.param(line().replace(b'"url"', b'"url":"/v1/embeddings","url"'), id="url twice"),
        pytest.param(line().replace(b'"model"', b'"model":"x","model"'), id="model twice"),
        pytest.param(line().replace(b'"url"', b'"URL":"/v1/embeddings","url"'), id="URL and url"),
        pytest.param(line(Custom_ID=CANARY), id="a key in another case"),
        pytest.param(line(body={"messages": [], "model": "m", "Model": CANARY}), id="Model and model"),
        pytest.param(line(method="GET"), id="GET"),
        pytest.param(line(method="post"), id="post"),
        pytest.param(line(url=f"/v1/{CANARY}"), id="unknown"),
        pytest.param(line(url="/v1/chat/completions?x=1"), id="query"),
        pytest.param(line(url="/v1/chat/../chat/completions"), id="dots"),
        pytest.param(line(url="/v1/chat%2Fcompletions"), id="escape"),
        pytest.param(line(url="/v1/v1/chat/completions"), id="base twice"),
        pytest.param(line(url="https://api.openai.com/v1/chat/completions"), id="whole URL"),
        pytest.param(line(url="/v1/models"), id="control"),
        pytest.param(line(url="/v1/batches", body={"input_file_id": "f", "endpoint": "e"}), id="batch"),
        pytest.param(line(url="/v1/realtime/sessions", body={"model": "m"}), id="session"),
        pytest.param(line(url=""), id="no URL"),
        pytest.param(line(url=5), id="URL of another type"),
        pytest.param(line(body={"model": "m"}), id="body of another call"),
        pytest.param(line(body=CANARY), id="body of another type"),
        pytest.param(b"\xef\xbb\xbf" + line(), id="byte order mark"),
        pytest.param(line().replace(b"hi", b"\xff"), id="not UTF-8"),
    ],
)
def test_one_bad_line_refuses_the_file_and_is_named(bad: bytes) -> None:
    error = refused(line() + line() + bad)

    assert error.status == 400
    assert error.message.startswith("Line 3 of /file: ")


def test_lines_and_models_are_bounded() -> None:
    many = b"".join(line(body={"model": f"m{n}", "messages": []}) for n in range(65))

    assert "more than 64 models" in refused(many).message
    embedding = line("/v1/embeddings", {"model": "m", "input": "a"})
    assert upload(embedding * MAX_LINES).request.choices == MAX_LINES
    assert f"more than {MAX_LINES} requests" in refused(embedding * (MAX_LINES + 1)).message
    assert refused(b"\n \n").code == Reason.UNCLASSIFIED
    assert refused(b"").code == Reason.UNCLASSIFIED


@pytest.mark.parametrize("purpose", ["assistants", "vision", "user_data", "fine-tune", "evals"])
def test_other_files_pass_unread_and_spend_nothing(purpose: str) -> None:
    found = upload(b"\x00 no JSON", purpose)

    assert (found.request.operation, found.request.models) == ("control", ())
    assert found.prompt == Prompt()


@pytest.mark.parametrize("purpose", ["Batch", "batch-api"])
def test_a_batch_by_another_spelling_is_one(purpose: str) -> None:
    assert upload(line(), purpose).request.operation == "batch"
    with pytest.raises(RequestRefused):
        upload(b"no JSON", purpose)


@pytest.mark.parametrize("purpose", ["", "batch_output", "other", " batch"])
def test_an_unknown_purpose_is_refused(purpose: str) -> None:
    with pytest.raises(RequestRefused, match="/purpose"):
        upload(line(), purpose)


def test_a_file_that_is_text_is_refused() -> None:
    with pytest.raises(RequestRefused, match="/file is required"):
        parsed_form("/v1/files", data={"purpose": "batch", "file": "text"}, files={"x": ("x", b"")})


def test_a_new_batch_names_a_file_that_was_judged_before() -> None:
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}

    request = parsed("/v1/batches", body).request

    assert (request.api, request.operation, request.models) == (API, "batch", ())
    assert (request.has_state, request.max_output_tokens) == (True, 0)


def test_an_upload_in_parts_is_no_batch() -> None:
    parts = {"purpose": "assistants", "filename": "a", "bytes": 5, "mime_type": "text/plain"}

    assert parsed("/v1/uploads", parts).request.operation == "control"
    for purpose in ("batch", "BATCH", "batch-api"):
        with pytest.raises(RequestRefused, match="/purpose is batch"):
            parsed("/v1/uploads", parts | {"purpose": purpose})
    with pytest.raises(RequestRefused, match="/purpose is required"):
        parsed("/v1/uploads", parts | {"purpose": "other"})


def test_fine_tuning_names_its_model() -> None:
    request = parsed("/v1/fine_tuning/jobs", {"model": "GPT-4o-Mini", "training_file": "file-1"}).request

    assert (request.operation, request.models) == ("fine_tuning", ("gpt-4o-mini",))
    with pytest.raises(RequestRefused, match="/model"):
        parsed("/v1/fine_tuning/jobs", {"training_file": "file-1"})


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"endpoint": "/v1/responses"}, "/input_file_id ", Reason.UNCLASSIFIED),
        ({"input_file_id": 5, "endpoint": "/v1/responses"}, "/input_file_id ", Reason.BODY_MALFORMED),
        ({"input_file_id": "f"}, "/endpoint ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed("/v1/batches", body)

    assert caught.value.code == code
    assert caught.value.message.startswith(pointer)


def test_a_receipt_says_nothing_of_the_cost() -> None:
    """So what was reserved for the batch stands."""
    assert observed(API, b'{"id":"file-1","object":"file","purpose":"batch"}') == Observation(
        response_id="file-1"
    )
    assert observed(API, b'{"error":{"type":"server_error"}}').error == "server_error"


@given(
    st.lists(st.binary(max_size=20) | st.sampled_from([line(), line("/v1/embeddings"), b"{}\n"]), max_size=4)
)
def test_no_file_raises_anything_but_a_refusal(lines: list[bytes]) -> None:
    with suppress(RequestRefused):
        upload(b"\n".join(lines))


@given(bodies("input_file_id", "endpoint", "model", "purpose"))
def test_no_shape_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    for path in ("/v1/batches", "/v1/uploads", "/v1/fine_tuning/jobs"):
        read(path, body)


def test_every_path_of_a_batch_has_its_format() -> None:
    assert {"openai_chat", "openai_responses", "openai_embeddings", "openai_completions"} <= FORMATS.keys()
    for url, body in (
        ("/v1/completions", {"model": "m", "prompt": "a"}),
        ("/v1/moderations", {"model": "m", "input": "a"}),
        ("/v1/images/generations", {"model": "m", "prompt": "a"}),
        ("/v1/images/edits", {"model": "m", "prompt": "a", "image": "https://image.example/a.png"}),
    ):
        assert upload(line(url, body)).request.models == ("m",)


def test_a_container_is_a_tool_and_needs_its_name() -> None:
    request = parsed("/v1/containers", {"name": "mine", "memory_limit": "64g"}).request

    assert (request.operation, request.tools) == ("execute_tool", ("code_interpreter",))
    with pytest.raises(RequestRefused, match="/name is required"):
        parsed("/v1/containers", {"model": "gpt-5"})
