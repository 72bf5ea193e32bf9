"""The tools that the bodies of OpenAI's APIs declare, by the names that rules know them by.

Floor 1, pure. Source: openai-python `types/responses/tool_param`, `types/chat`, `types/beta`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.formats import fields
from extproc.formats.base import JSON
from extproc.formats.strict_json import compact_json

_KEYS = frozenset(
    {
        "type",
        "function",
        "custom",
        "name",
        "server_label",
        "model",
        "svg",
        "tools",
        "container",
        "environment",
    }
)
# Something of the provider's own that holds files and variables of earlier requests.
_CONTAINER_ID = "container_id"


@dataclass(slots=True)
class Tools:
    """Gathers the tools of one request."""

    names: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)  # compact JSON, for the tokenizer
    models: list[str] = field(default_factory=list)  # that tools bring along, lower case
    has_state: bool = False

    def read(self, body: JSON, key: str = "tools", at: str = "") -> None:
        """Take the list of tools at `key`."""
        for here, tool in fields.objects(body, key, at):
            self._name(tool, here)
            self.definitions.append(compact_json(tool))

    def read_functions(self, body: JSON) -> None:
        """Take `functions`, the older list without kinds."""
        for at, function in fields.objects(body, "functions"):
            self.names.append(fields.string(function, "name", at))
            self.definitions.append(compact_json(function))

    def _name(self, tool: JSON, at: str) -> None:
        fields.check_case(tool, _KEYS, at)
        kind = fields.string(tool, "type", at)
        inner = tool.get(kind)
        place = f"{at}/{fields.told(kind)}"
        named = fields.string(inner, "name", place) if isinstance(inner, dict) else ""
        self.names.append(named or fields.string(tool, "name", at) or kind)
        if kind == "mcp":
            # The label is the caller's own choice, so the kind must show too.
            self.names.append(fields.string(tool, "server_label", at))
        elif kind == "namespace":
            for here, nested in fields.objects(tool, "tools", at):
                self._name(nested, here)
        elif kind == "image_generation":
            svg = fields.mapping(tool, "svg", at)
            fields.check_case(svg, _KEYS, f"{at}/svg")
            self.models += [fields.name(tool, "model", at), fields.name(svg, "model", f"{at}/svg")]
        else:
            self.has_state = self.has_state or _keeps_state(tool, at)


def _keeps_state(tool: JSON, at: str) -> bool:
    """A container named by its id, as code interpreters and shells take one, is not a new one."""
    if isinstance(tool.get("container"), str):
        return True
    return fields.mapping(tool, "environment", at).get(_CONTAINER_ID) is not None
