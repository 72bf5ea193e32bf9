"""The items of a Responses input: messages, calls of tools and what came of them, sealed reasoning.

Floor 1, pure. Source: openai-python `types/responses/response_input_item_param`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from extproc.formats import fields
from extproc.formats.base import JSON
from extproc.formats.content import Content
from extproc.formats.images import size_of_base64
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.tools import Tools
from extproc.formats.strict_json import compact_json

_KEYS = frozenset(
    {
        *("type", "role", "content", "id", "name", "arguments", "input", "output", "summary", "tools"),
        *("encrypted_content", "result"),
    }
)
_PROMPT_KEYS = frozenset({"id", "variables"})
_REFERENCE = "item_reference"
# No roles of the API, so that no counter takes the prompt for plain text.
_REASONING_ROLE = "reasoning"
_ITEM_ROLE = "item"
# Base64 spends four characters on three bytes, and English four bytes on a token. What is around the
# text is not worth its own term.
_SEALED_CHARS_PER_TOKEN = 16 / 3


@dataclass(slots=True)
class Input:
    """Gathers one request's input, and what it says of tools and of state."""

    content: Content = field(default_factory=Content)
    tools: Tools = field(default_factory=Tools)
    message_count: int = 0
    refers_to_stored: bool = False

    @property
    def has_state(self) -> bool:
        """Whether the provider adds what it keeps of earlier requests."""
        return self.refers_to_stored or self.tools.has_state

    @property
    def is_anything(self) -> bool:
        """Whether there is any input of its own."""
        return self.message_count > 0 or self.refers_to_stored

    def read_text(self, text: str) -> None:
        """Take an input that is one message of the user."""
        self.content.text(text)
        self.content.end_message("user")
        self.message_count += 1

    def read_items(self, body: JSON, key: str) -> None:
        """Take the items at `key`, a list."""
        for at, item in fields.objects(body, key):
            fields.check_case(item, _KEYS, at)
            kind = fields.string(item, "type", at) or ("message" if "role" in item else _REFERENCE)
            _READERS.get(kind, _read_unknown)(self, item, at)
            self.message_count += 1

    def read_instructions(self, body: JSON) -> None:
        """Take what stands before all input, as a system message."""
        if body.get("instructions") is not None:
            self.content.text(fields.string(body, "instructions"))
            self.content.end_message("system")

    def read_prompt(self, body: JSON) -> bool:
        """Whether a stored prompt is to be used; its variables are input too."""
        prompt = fields.mapping(body, "prompt")
        if not prompt:
            return False
        fields.check_case(prompt, _PROMPT_KEYS, "/prompt")
        if not fields.string(prompt, "id", "/prompt"):
            raise fields.wrong("/prompt/id", "is required and must be a string that is not empty")
        self.refers_to_stored = True
        variables = fields.mapping(prompt, "variables", "/prompt")
        for name, value in variables.items():
            if isinstance(value, str):
                self.content.text(value)
            else:
                shown = fields.told(name)
                part = fields.mapping({shown: value}, shown, "/prompt/variables")
                openai_request.read_part(part, "/prompt/variables", self.content)
        self.content.end_message("user")
        return True


Reader = Callable[[Input, JSON, str], None]


def _read_message(found: Input, item: JSON, at: str) -> None:
    openai_request.read_message(item, at, found.content)


def _read_call(found: Input, item: JSON, at: str) -> None:
    for key in ("name", "arguments", "input"):
        found.content.text(fields.string(item, key, at))
    # The provider ran a tool of its own or of a remote server, and keeps both in one item.
    found.content.text(fields.string(item, "output", at))
    found.content.end_message("assistant")


def _read_output(found: Input, item: JSON, at: str) -> None:
    if isinstance(item.get("output"), dict):
        openai_request.read_part(fields.mapping(item, "output", at), f"{at}/output", found.content)
    else:
        openai_request.read_parts(item, "output", at, found.content)
    found.content.end_message("tool")


def _read_reasoning(found: Input, item: JSON, at: str) -> None:
    for key in ("summary", "content"):
        openai_request.read_parts(item, key, at, found.content)
    _read_sealed(found, item, at)


def _read_sealed(found: Input, item: JSON, at: str) -> None:
    """Only the provider can read it, but it is text of about this many tokens."""
    sealed = fields.string(item, "encrypted_content", at)
    found.content.ids(int(len(sealed) / _SEALED_CHARS_PER_TOKEN))
    found.content.end_message(_REASONING_ROLE)


def _read_reference(found: Input, _item: JSON, _at: str) -> None:
    found.refers_to_stored = True


def _read_generated_image(found: Input, item: JSON, at: str) -> None:
    found.content.image(size_of_base64(fields.string(item, "result", at)))
    found.content.end_message("assistant")


def _read_more_tools(found: Input, item: JSON, at: str) -> None:
    """Tools that the conversation brought along count like those of the body."""
    found.tools.read(item, "tools", at)


def _read_unknown(found: Input, item: JSON, _at: str) -> None:
    """An item of a kind we do not know is counted as the text it is written in."""
    found.content.text(compact_json(item))
    found.content.end_message(_ITEM_ROLE)


_READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "message": _read_message,
        **dict.fromkeys(("function_call", "custom_tool_call", "mcp_call"), _read_call),
        **dict.fromkeys(
            ("function_call_output", "custom_tool_call_output", "computer_call_output"), _read_output
        ),
        "reasoning": _read_reasoning,
        **dict.fromkeys(("compaction", "compaction_summary"), _read_sealed),
        _REFERENCE: _read_reference,
        "image_generation_call": _read_generated_image,
        **dict.fromkeys(("additional_tools", "tool_search_output"), _read_more_tools),
    }
)
