"""OpenAI's files and what runs on them: uploads, batches, fine-tuning, containers, evaluations.

Floor 1, pure. A batch is judged and charged when its file is uploaded: later calls only name it.
Denials are `dialect`. Source: openai-python `resources`, `types/file_create_params`,
`types/batch_create_params`, `types/upload_create_params`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import extproc.formats as registry  # complete only once this module is: used in calls alone
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import CONTROL, JSON, AnswerReader, BodyKind, Call, ParsedRequest, RequestLine
from extproc.formats.multipart import FilePart
from extproc.formats.openai import batch_file
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.plain_answers import Receipts
from extproc.formats.providers import OPENAI
from extproc.model import AIRequest, Prompt

_BATCH, _TOOL = "batch", "execute_tool"
_ROOTS = frozenset({"files", "uploads", "batches", "fine_tuning", "containers", "evals"})
_STORED_METHODS = frozenset({"GET", "DELETE"})
# What POST means, with `*` for an identifier. Runs of evaluations and graders are missing: they
# generate, and nothing here can say how much.
_POSTS: Mapping[tuple[str, ...], tuple[str, BodyKind]] = MappingProxyType(
    {
        ("files",): (_BATCH, BodyKind.FORM),
        ("batches",): (_BATCH, BodyKind.JSON),
        ("batches", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
        ("uploads",): (CONTROL, BodyKind.JSON),
        ("uploads", "*", "parts"): (CONTROL, BodyKind.OPAQUE),
        ("uploads", "*", "complete"): (CONTROL, BodyKind.OPAQUE),
        ("uploads", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
        # It costs money, but no tokens of a limit; its model is there for access rules.
        ("fine_tuning", "jobs"): ("fine_tuning", BodyKind.JSON),
        ("fine_tuning", "jobs", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
        ("fine_tuning", "jobs", "*", "pause"): (CONTROL, BodyKind.OPAQUE),
        ("fine_tuning", "jobs", "*", "resume"): (CONTROL, BodyKind.OPAQUE),
        ("fine_tuning", "checkpoints", "*", "permissions"): (CONTROL, BodyKind.OPAQUE),
        ("fine_tuning", "alpha", "graders", "validate"): (CONTROL, BodyKind.OPAQUE),
        # It costs money, but no tokens: a tool's own machine, whether a model uses it or not.
        ("containers",): (_TOOL, BodyKind.JSON),
        ("containers", "*", "files"): (CONTROL, BodyKind.OPAQUE),
        ("evals",): (CONTROL, BodyKind.OPAQUE),
        ("evals", "*"): (CONTROL, BodyKind.OPAQUE),
        ("evals", "*", "runs", "*"): (CONTROL, BodyKind.OPAQUE),  # cancels
        ("evals", "*", "runs", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
    }
)
# Together's word for it is the second.
_BATCHES = frozenset({_BATCH, "batch-api"})
# An upload for another purpose cannot become a batch.
_OTHER_PURPOSES = frozenset({"assistants", "evals", "fine-tune", "ocr", "user_data", "vision"})


class OpenAIFiles(OpenAIFormat):
    """The wire format `openai_files`."""

    name = "openai_files"

    def claim(self, line: RequestLine) -> Call | None:
        """Uploads and new batches have bodies to read; Anthropic's files have the same path."""
        # Without a path some part holds a slash, which servers may take for one more part.
        if not line.path or line.segments[0] not in _ROOTS or "anthropic-version" in line.headers:
            return None
        if line.method in _STORED_METHODS:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        found = _posted(line.segments) if line.method == "POST" else None
        return Call(api=self.name, operation=found[0], body=found[1]) if found else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a form or a body. Raises `RequestRefused` (400) naming field or line that is wrong."""
        if call.body is BodyKind.FORM:
            return _read_upload(body, call)
        if call.operation == _TOOL:
            return _read_container(body, call)
        return _read_batch(body, call) if call.operation == _BATCH else _read_job(body, call)

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer: what a batch costs comes hours later, in a file."""
        return reader(Receipts(), headers)


def _posted(segments: tuple[str, ...]) -> tuple[str, BodyKind] | None:
    for shape, meaning in _POSTS.items():
        if len(shape) == len(segments) and all(
            wanted in ("*", found) for wanted, found in zip(shape, segments, strict=True)
        ):
            return meaning
    return None


def _read_upload(form: JSON, call: Call) -> ParsedRequest:
    purpose = _purpose(form)
    upload = form.get("file")
    if not isinstance(upload, FilePart):
        raise fields.not_this_call("/file is required: this path takes a file")
    if purpose in _BATCHES:
        formats = {name: registry.FORMATS[name] for name in OPENAI}
        return batch_file.read(upload.content, call, formats)
    return ParsedRequest(request=_control(call), prompt=Prompt())


def _read_batch(body: JSON, call: Call) -> ParsedRequest:
    """A batch by its file's name; the file was judged, and charged for, at its upload."""
    if body.get("input_file_id") is None:
        raise fields.not_this_call("/input_file_id is required: this path takes a batch")
    fields.required_name(body, "input_file_id")
    fields.required_name(body, "endpoint")
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=call.model or fields.name(body, "model"),
        models=fields.models(fields.models_of(body, call)),
        has_state=True,
        max_output_tokens=0,
    )
    return ParsedRequest(request=request, prompt=Prompt())


def _read_job(body: JSON, call: Call) -> ParsedRequest:
    """The beginning of an upload in parts, or a job of fine-tuning."""
    if body.get("purpose") is not None and _purpose(body) in _BATCHES:
        # Its parts come one by one, and a request may begin in one and end in the next.
        raise fields.not_this_call("/purpose is batch: upload the file of a batch as a whole, to /files")
    model = "" if body.get("purpose") is not None else fields.model(body, call)
    models = fields.models([model, *fields.models_of(body, call)])
    request = replace(_control(call, model=model, models=models), operation=call.operation)
    return ParsedRequest(request=request, prompt=Prompt())


def _read_container(body: JSON, call: Call) -> ParsedRequest:
    """A container of the code interpreter, by the name that rules know it by."""
    if body.get("name") is None:
        raise fields.not_this_call("/name is required: this path takes a container")
    request = AIRequest(api=call.api, provider=call.provider, operation=_TOOL, tools=("code_interpreter",))
    return ParsedRequest(request=request, prompt=Prompt())


def _purpose(body: JSON) -> str:
    purpose = fields.name(body, "purpose")
    if purpose not in _BATCHES | _OTHER_PURPOSES:
        known = ", ".join(sorted(_BATCHES | _OTHER_PURPOSES))
        raise fields.not_this_call(f"/purpose is required and must be one of {known}")
    return purpose


def _control(call: Call, *, model: str = "", models: tuple[str, ...] = ()) -> AIRequest:
    return AIRequest(api=call.api, provider=call.provider, operation=CONTROL, model=model, models=models)
