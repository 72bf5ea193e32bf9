import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.formats.base import BodyKind
from extproc.model import Observation, PromptImage, Usage
from tests.formats.calls import SSE_ANSWER, claimed, observed, parsed, split_everywhere
from tests.formats.corpus import CORPUS, MISSING, exchanges, observations, request_of
from tests.formats.forms import parsed_form
from tests.formats.shapes import bodies, read

FIXTURES = Path(__file__).parent.parent / "fixtures/openai_images"
API = "openai_images"
GENERATIONS, EDITS, VARIATIONS = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"
# The header of a picture of 640 by 480 pixels.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0" + bytes(100)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SIZED, UNSIZED = PromptImage(width_px=640, height_px=480), PromptImage(width_px=None, height_px=None)


def test_a_picture_from_text_is_read() -> None:
    found = parsed(
        GENERATIONS,
        {
            "model": "GPT-Image-1",
            "prompt": "a cat",
            "n": 3,
            "stream": True,
            "user": "u1",
            "partial_images": 2,
        },
    )

    request = found.request
    assert (request.api, request.operation, request.provider) == (API, "image_generation", "openai")
    assert (request.model, request.models) == ("gpt-image-1", ("gpt-image-1",))
    assert (request.choices, request.stream, request.end_user) == (3, True, "u1")
    assert request.max_output_tokens is None
    assert [message.text for message in found.prompt.messages] == ["a cat"]


def test_without_a_model_nobody_can_say_which_one_draws() -> None:
    with pytest.raises(RequestRefused, match="/model is required"):
        parsed(GENERATIONS, {"prompt": "a cat", "quality": "high"})
    with pytest.raises(RequestRefused, match="/model is required"):
        parsed_form(VARIATIONS, files={"image": ("a.png", PNG)})


def test_the_deployment_in_the_path_is_the_model() -> None:
    path = "/openai/deployments/My-Images/images/generations?api-version=2025-04-01-preview"

    request = parsed(path, {"prompt": "a cat"}).request

    assert (request.provider, request.models) == ("azure.ai.openai", ("my-images",))


def test_an_edit_as_a_form_is_read() -> None:
    found = parsed_form(
        EDITS,
        data={
            "prompt": "add a hat",
            "model": "gpt-image-1",
            "n": "2",
            "stream": "true",
            "svg[model]": "GPT-5",
        },
        files=[("image[]", ("a.png", PNG)), ("image[]", ("b.png", b"?")), ("mask", ("m.png", PNG))],
    )

    assert (found.request.choices, found.request.stream) == (2, True)
    assert found.request.models == ("gpt-image-1", "gpt-5")
    assert found.request.modalities == ("image", "text")
    assert found.prompt.images == (SIZED, UNSIZED, SIZED)
    assert "PNG" not in repr(found.prompt)


@pytest.mark.parametrize(
    ("image", "images"),
    [
        (PNG_URL, (SIZED,)),
        ({"url": PNG_URL, "type": "image_url"}, (SIZED,)),
        ({"image_url": PNG_URL}, (SIZED,)),
        ({"image_url": {"url": PNG_URL}}, (SIZED,)),
        ([{"image_url": "https://image.example/a.png"}, {"file_id": "file-1"}], (UNSIZED, UNSIZED)),
        (["https://image.example/a.png", PNG_URL], (UNSIZED, SIZED)),
    ],
)
def test_an_edit_as_json_is_read(image: Any, images: tuple[PromptImage, ...]) -> None:
    for key in ("image", "images", "mask"):
        found = parsed(EDITS, {"model": "gpt-image-1.5", "prompt": "add a hat", key: image})

        assert found.prompt.images == images
        assert len(repr(found.prompt)) < 500


def test_vectors_are_drawn_by_a_second_model() -> None:
    body = {"model": "gpt-image-2", "prompt": "a cat", "output_format": "svg", "svg": {"model": "GPT-5.4"}}

    assert parsed(GENERATIONS, body).request.models == ("gpt-image-2", "gpt-5.4")
    form = {"prompt": "a cat", "model": "gpt-image-2", "svg": '{"model":"gpt-5.4"}'}
    assert parsed_form(EDITS, data=form, files={"image": ("a", PNG)}).request.models[1] == "gpt-5.4"


def test_a_call_is_a_form_where_its_content_type_says_so() -> None:
    form = {"content-type": "Multipart/Form-Data; boundary=x"}

    for path, headers, kind in (
        (EDITS, form, BodyKind.FORM),
        (VARIATIONS, form, BodyKind.FORM),
        (EDITS, {"content-type": "application/json"}, BodyKind.JSON),
        (GENERATIONS, form, BodyKind.JSON),
    ):
        call = claimed(path, headers=headers)
        assert call is not None
        assert (call.api, call.body) == (API, kind)
    assert claimed(EDITS, method="GET") is None
    assert claimed("/v1/images/other") is None


@pytest.mark.parametrize(
    ("path", "body", "pointer", "code"),
    [
        (GENERATIONS, {"model": "gpt-image-1"}, "/prompt ", Reason.UNCLASSIFIED),
        (EDITS, {"model": "gpt-image-1"}, "/prompt ", Reason.UNCLASSIFIED),
        (GENERATIONS, {"prompt": ["a cat"]}, "/prompt ", Reason.BODY_MALFORMED),
        (GENERATIONS, {"model": "m", "prompt": "a", "n": "3"}, "/n ", Reason.BODY_MALFORMED),
        (GENERATIONS, {"model": "m", "prompt": "a", "stream": "true"}, "/stream ", Reason.BODY_MALFORMED),
        (GENERATIONS, {"prompt": "a", "model": 5}, "/model ", Reason.BODY_MALFORMED),
        (GENERATIONS, {"model": "m", "prompt": "a", "svg": {"Model": "x"}}, "/svg ", Reason.BODY_MALFORMED),
        (EDITS, {"prompt": "a", "image": 5}, "/image ", Reason.BODY_MALFORMED),
        (EDITS, {"prompt": "a", "images": [[7]]}, "/images/0/0 ", Reason.BODY_MALFORMED),
        (EDITS, {"prompt": "a", "images": [{"Image_url": "x"}]}, "/images/0 ", Reason.BODY_MALFORMED),
    ],
)
def test_what_cannot_be_read_is_400_and_names_its_place(
    path: str, body: dict[str, Any], pointer: str, code: Reason
) -> None:
    with pytest.raises(RequestRefused) as caught:
        parsed(path, body)

    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.message.startswith(pointer)


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": "a", "n": "many"},
        {"prompt": "a", "stream": "1"},
        {"prompt": "a", "svg": "{"},
        {"prompt": "a", "svg": '{"model":"a"}', "svg[model]": "b"},
        {"prompt": "a", "model[]": "gpt-image-1"},
        {"model": "gpt-image-1"},
    ],
)
def test_a_form_that_cannot_be_read_is_400(data: dict[str, str]) -> None:
    files = {"other": ("a.png", PNG)}

    with pytest.raises(RequestRefused) as caught:
        parsed_form(EDITS, data=data, files=files)

    assert caught.value.status == 400


def test_a_prompt_that_is_a_file_is_refused() -> None:
    with pytest.raises(RequestRefused, match="/prompt must be a string"):
        parsed_form(EDITS, files={"prompt": ("a", b"x"), "image": ("a", PNG)})


def test_an_answer_is_observed() -> None:
    assert observed(API, (FIXTURES / "answer.json").read_bytes()) == Observation(
        usage=Usage(input_tokens=338, output_tokens=272, image_input_tokens=323, image_output_tokens=272),
        finished=True,
        is_legible=True,
        output_text="A cat, drawn.",
    )


def test_a_stream_is_observed_alike_wherever_it_is_cut() -> None:
    data = (FIXTURES / "stream.sse").read_bytes()
    whole = Observation(
        usage=Usage(input_tokens=13, output_tokens=472, image_input_tokens=0), finished=True, is_legible=True
    )

    assert observed(API, data.replace(b"event: image_generation.", b"x: "), headers=SSE_ANSWER) == whole
    for first, second in split_everywhere(data):
        assert observed(API, first, second, headers=SSE_ANSWER) == whole


def test_a_second_models_usage_is_added() -> None:
    body = {
        "usage": {"input_tokens": 10, "output_tokens": 20},
        "svg_usage": {"model": "gpt-5.4", "input_tokens": 3, "output_tokens": 9, "reasoning_tokens": 4},
    }

    seen = observed(API, json.dumps(body).encode())

    assert seen.usage == Usage(input_tokens=13, output_tokens=29, reasoning_output_tokens=4)


def test_an_error_inside_a_stream_is_one() -> None:
    seen = observed(API, b'data: {"type":"error","error":{"type":"image_error"}}\n\n', headers=SSE_ANSWER)

    assert (seen.error, seen.finished) == ("image_error", False)


@given(
    bodies("prompt", "model", "models", "image", "images", "image_url", "url", "svg", "n", "stream", "mask")
)
def test_no_shape_raises_anything_but_a_refusal(body: dict[str, Any]) -> None:
    read(GENERATIONS, body)
    read(EDITS, body)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=MISSING)
def test_recorded_exchanges_are_read() -> None:
    recorded = [each for each in exchanges() if each["operation"] == "images"]
    assert len(recorded) == 5

    for each in recorded:
        request = request_of(each).request
        assert (request.api, request.operation) == (API, "image_generation")
        assert request.model == each["expected"]["model_request"]
        for seen in observations(API, "image_generation", each):
            assert (seen.finished, seen.usage) == (True, None)
            assert bool(seen.error) is (each["status"] >= 400)
