"""Bedrock Converse: recognising a call and reading its body; Nova's native bodies are read here too.

Floor 1, pure. Answers are `bedrock_answers`, denials `bedrock_dialect`. Source: Bedrock Runtime's
service model (2023-09-30), as botocore ships it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.aws import bedrock_dialect
from extproc.formats.aws.bedrock_answers import ConverseAnswers
from extproc.formats.aws.bedrock_blocks import read_blocks
from extproc.formats.aws.bedrock_models import Operation, claim, is_prompt, names
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    Call,
    OutputCeiling,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.content import Content
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest, Prompt

_OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "converse": Operation("chat", stream=False),
        "converse-stream": Operation("chat", stream=True),
        "count-tokens": Operation(CONTROL),
    }
)

_MESSAGE_KEYS = frozenset({"role", "content"})
_INFERENCE_KEYS = frozenset({"maxTokens", "max_new_tokens", "temperature"})
_TOOL_KEYS = frozenset({"toolSpec", "systemTool", "cachePoint"})
_VENDOR = "/additionalModelRequestFields"
# What vendors call the ceiling in the fields that Bedrock hands on to them unread.
_VENDOR_CEILINGS = (
    "max_tokens",
    "max_completion_tokens",
    "max_new_tokens",
    "max_gen_len",
    "max_tokens_to_sample",
    "maxTokens",
    "maxTokenCount",
)
_VENDOR_KEYS = frozenset({*_VENDOR_CEILINGS, "n", "model", "tools", "inferenceConfig"})
_OWN_CEILINGS = ("maxTokens", "max_new_tokens")
_VENDOR_FIELDS = _VENDOR[1:]
CEILING = OutputCeiling(
    read=(
        *(f"inferenceConfig/{key}" for key in _OWN_CEILINGS),
        *(f"{_VENDOR_FIELDS}/{key}" for key in _VENDOR_CEILINGS),
        *(f"{_VENDOR_FIELDS}/inferenceConfig/{key}" for key in _VENDOR_CEILINGS),
    ),
    added="inferenceConfig/maxTokens",
    # As Anthropic calls it now, and as Bedrock did first.
    below=tuple(f"{_VENDOR_FIELDS}/{key}/budget_tokens" for key in ("thinking", "reasoning_config")),
)
# No role of the API, so that no counter takes the prompt for plain text.
_SCHEMA_ROLE = "response_format"


class BedrockConverse(Unasked):
    """The wire format `bedrock_converse`; bodies are signed, so nothing may be added to them."""

    name = "bedrock_converse"
    provider = "aws.bedrock"

    def claim(self, line: RequestLine) -> Call | None:
        """Converse with a model, streamed or not; counting tokens is control."""
        return claim(line, self.name, _OPERATIONS)

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if call.operation == CONTROL:
            return _read_count(body, call)
        if body.get("messages") is None and not is_prompt(call.model):
            raise fields.not_this_call("/messages is required: this path takes a conversation")
        parsed = read_converse(body, call)
        user = fields.mapping(body, "requestMetadata").get("user")
        end_user = user if isinstance(user, str) else ""
        return replace(parsed, request=replace(parsed.request, end_user=end_user))

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """None for a stored prompt, beside which Bedrock takes none."""
        return None if is_prompt(call.model) else CEILING

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(ConverseAnswers(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An AWS error."""
        return bedrock_dialect.render_denial(denial)


def read_converse(body: JSON, call: Call) -> ParsedRequest:
    """A body of Converse, or Nova's own, which spells one ceiling in two ways."""
    content = Content()
    message_count = _read_messages(body, content)
    _read_variables(body, content)
    _read_output_schema(body, content)
    tool_names, definitions = _read_tools(body)
    vendor = fields.mapping(body, "additionalModelRequestFields")
    fields.check_case(vendor, _VENDOR_KEYS, _VENDOR)
    vendor_tools = _read_vendor_tools(vendor)
    inference = fields.mapping(body, "inferenceConfig")
    fields.check_case(inference, _INFERENCE_KEYS, "/inferenceConfig")
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=call.model,
        models=fields.models([*names(call.model), fields.name(vendor, "model", _VENDOR)]),
        stream=bool(call.stream),
        choices=fields.count(vendor, "n", _VENDOR) or 1,
        message_count=message_count,
        tools=fields.tools([*tool_names, *vendor_tools[0]], "/toolConfig/tools"),
        modalities=tuple(sorted(content.modalities)),
        temperature=fields.number(inference, "temperature", "/inferenceConfig"),
        has_state=is_prompt(call.model),
        max_output_tokens=_read_ceiling(inference, vendor),
    )
    return ParsedRequest(request=request, prompt=content.prompt((*definitions, *vendor_tools[1])))


def _read_count(body: JSON, call: Call) -> ParsedRequest:
    """What is to be counted is a body of Converse, or one of InvokeModel in base64."""
    counted = fields.mapping(body, "input")
    if len(counted) != 1 or not counted.keys() <= {"converse", "invokeModel"}:
        raise fields.not_this_call("/input is required and must hold one of converse and invokeModel")
    if "converse" in counted:
        return read_converse(fields.mapping(counted, "converse", "/input"), call)
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=call.model,
        models=fields.models(names(call.model)),
    )
    return ParsedRequest(request=request, prompt=Prompt())


def _read_ceiling(inference: JSON, vendor: JSON) -> int | None:
    found = [fields.count(inference, key, "/inferenceConfig") for key in _OWN_CEILINGS]
    if vendor:
        nested = fields.mapping(vendor, "inferenceConfig", _VENDOR)
        found += [fields.count(vendor, key, _VENDOR) for key in _VENDOR_CEILINGS]
        found += [fields.count(nested, key, f"{_VENDOR}/inferenceConfig") for key in _VENDOR_CEILINGS]
    return max((ceiling for ceiling in found if ceiling is not None), default=None)


def _read_messages(body: JSON, content: Content) -> int:
    if body.get("system") is not None:
        read_blocks(body, "system", "", content)
        content.end_message("system")
    messages = list(fields.objects(body, "messages"))
    for at, message in messages:
        fields.check_case(message, _MESSAGE_KEYS, at)
        role = fields.required_name(message, "role", at)
        read_blocks(message, "content", at, content)
        content.end_message(role)
    return len(messages)


def _read_variables(body: JSON, content: Content) -> None:
    """What fills the blanks of a stored prompt."""
    variables = fields.mapping(body, "promptVariables")
    for value in variables.values():
        # Their names are the caller's own, and are not told.
        if not isinstance(value, dict):
            raise fields.wrong("/promptVariables", "must hold objects")
        content.text(fields.string(value, "text", "/promptVariables"))
    if variables:
        content.end_message("user")


def _read_output_schema(body: JSON, content: Content) -> None:
    at = "/outputConfig/textFormat/structure"
    wanted = fields.mapping(fields.mapping(body, "outputConfig"), "textFormat", "/outputConfig")
    structure = fields.mapping(wanted, "structure", "/outputConfig/textFormat")
    schema = fields.mapping(structure, "jsonSchema", at)
    if schema:
        for key in ("name", "description", "schema"):
            content.text(fields.string(schema, key, f"{at}/jsonSchema"))
        content.end_message(_SCHEMA_ROLE)


def _read_tools(body: JSON) -> tuple[list[str], list[str]]:
    tool_names: list[str] = []
    definitions: list[str] = []
    config = fields.mapping(body, "toolConfig")
    for at, tool in fields.objects(config, "tools", "/toolConfig"):
        fields.check_case(tool, _TOOL_KEYS, at)
        tool_names += [
            fields.string(fields.mapping(tool, kind, at), "name", f"{at}/{kind}")
            for kind in ("toolSpec", "systemTool")
        ]
        if tool.keys() != {"cachePoint"}:
            definitions.append(compact_json(tool))
    return tool_names, definitions


def _read_vendor_tools(vendor: JSON) -> tuple[list[str], list[str]]:
    """Tools that only their vendor knows, such as Anthropic's computer."""
    tool_names: list[str] = []
    definitions: list[str] = []
    for at, tool in fields.objects(vendor, "tools", _VENDOR):
        tool_names.append(fields.string(tool, "name", at) or fields.string(tool, "type", at))
        definitions.append(compact_json(tool))
    return tool_names, definitions
