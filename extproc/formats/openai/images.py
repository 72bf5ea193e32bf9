"""OpenAI Images: pictures from text, and from other pictures.

Floor 1, pure. Answers are `images_answers`, denials `dialect`. Source: openai-python
`types/image_generate_params`, `image_edit_params`, `image_create_variation_params`; xAI's JSON edits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, BodyKind, Call, ParsedRequest, RequestLine
from extproc.formats.body import media_type
from extproc.formats.content import Content
from extproc.formats.images import size_of_bytes, size_of_url
from extproc.formats.multipart import FilePart, typed
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.images_answers import OpenAIImagesAnswers
from extproc.formats.strict_json import parse_json
from extproc.model import AIRequest

_GENERATIONS, _EDITS, _VARIATIONS = "/images/generations", "/images/edits", "/images/variations"
_PATHS = frozenset({_GENERATIONS, _EDITS, _VARIATIONS})
_FORM = "multipart/form-data"
_FLAGS, _COUNTS = frozenset({"stream"}), frozenset({"n"})
_IMAGE_KEYS = ("image", "image[]", "images", "mask", "markup")
_SVG_KEYS = frozenset({"model"})
_REFERENCE_KEYS = frozenset({"image_url", "url", "file_id", "type"})


class OpenAIImages(OpenAIFormat):
    """The wire format `openai_images`."""

    name = "openai_images"

    def claim(self, line: RequestLine) -> Call | None:
        """All are POST; edits and variations come as forms, or as JSON with references."""
        if line.method != "POST" or line.path not in _PATHS:
            return None
        is_form = line.path != _GENERATIONS and media_type(line.headers) == _FORM
        return Call(
            api=self.name, operation="image_generation", body=BodyKind.FORM if is_form else BodyKind.JSON
        )

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a form or a body. Raises `RequestRefused` (400) naming the field that is wrong."""
        if call.body is BodyKind.FORM:
            body = typed(body, flags=_FLAGS, counts=_COUNTS)
        content = Content()
        content.text(fields.string(body, "prompt"))
        for key in _IMAGE_KEYS:
            _read_image(body.get(key), f"/{key}", content)
        if not content.modalities:
            raise fields.not_this_call("/prompt is required: this path takes a picture's description")
        content.end_message("user")
        # Which model the API takes where none is named has changed, and would be no rule's to judge.
        named = fields.model(body, call)
        svg = _svg(body)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=named,
            models=openai_request.models(body, call, svg),
            stream=fields.flag(body, "stream"),
            choices=fields.count(body, "n") or 1,
            message_count=1,
            modalities=tuple(sorted(content.modalities)),
            end_user=openai_request.end_user(body),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(OpenAIImagesAnswers(), headers)


def _read_image(value: Any, at: str, content: Content) -> None:
    """An uploaded file, a URL, a reference, or a list of them."""
    if isinstance(value, FilePart):
        content.image(size_of_bytes(value.content))
    elif isinstance(value, str):
        content.image(size_of_url(value))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _read_image(item, f"{at}/{position}", content)
    elif isinstance(value, dict):
        fields.check_case(value, _REFERENCE_KEYS, at)
        url = value.get("image_url")
        inner = url if isinstance(url, dict) else value
        named = fields.string(inner, "url", at) or (
            "" if inner is url else fields.string(value, "image_url", at)
        )
        content.image(size_of_url(named))
    elif value is not None:
        raise fields.wrong(at, "must be an image, or a list of images")


def _svg(body: JSON) -> str:
    """The model that draws vectors; a form spells it with brackets, or as JSON."""
    svg = body.get("svg")
    inner = parse_json(svg.encode()) if isinstance(svg, str) else fields.mapping(body, "svg")
    fields.check_case(inner, _SVG_KEYS, "/svg")
    bracketed = fields.name(body, "svg[model]")
    named = fields.name(inner, "model", "/svg")
    if bracketed and named:
        raise fields.wrong("/svg", "is there twice")
    return bracketed or named
