"""What the author of a policy object wrote, kept so that a decision can be explained in those words.

Floor 1, pure. Comments inside a spec are the author's words too. An ApiKey is never quoted: whoever
reads an explanation has no business with the digest of a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import yaml

from extproc.policy.documents import Document
from extproc.policy.objects import PolicyObject, Spec

_NEVER_QUOTED: Final = frozenset({"ApiKey"})
# What an alias means may be written outside of the spec.
_ALIAS: Final = re.compile(r"(?:^|[\s\[{,])\*[^\s,\]}]")
_NO_WIDTH_LIMIT: Final = 1 << 20


def wording(objects: Iterable[PolicyObject[Spec]]) -> dict[str, str]:
    """The specs of the objects of a policy set as YAML, by `Kind/name`; no ApiKey."""
    return {str(item.ref): item.wording for item in objects if item.wording}


def spec_text(document: Document) -> str:
    """The spec of the object in a document as its author wrote it; empty where it may not be quoted."""
    node = document.nodes.get(("spec",))
    if node is None or document.value.get("kind") in _NEVER_QUOTED:
        return ""
    begin, value = node.start_mark.index, document.value["spec"]
    if _ALIAS.search(document.source[begin : node.end_mark.index]):
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=_NO_WIDTH_LIMIT)
    return _moved_left(document.source[begin : _end(document)], node.start_mark.column)


def _end(document: Document) -> int:
    """Where the spec's last value ends, with the comment behind it.

    A mapping's own end is where the next token begins: that would take the comments of what follows.
    """
    specs = [node for path, node in document.nodes.items() if path[:1] == ("spec",)]
    # A block collection is the one node that has no end of its own.
    end = max(node.end_mark.index for node in specs if getattr(node, "flow_style", True))
    line = document.source[end:].partition("\n")[0]
    return end + len(line) if line.lstrip().startswith("#") else end


def _moved_left(text: str, columns: int) -> str:
    """The lines without the indentation they share."""
    first, *others = text.rstrip().split("\n")
    return "".join(f"{line}\n" for line in (first, *(_without_indent(line, columns) for line in others)))


def _without_indent(line: str, columns: int) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return line[min(columns, indent) :].rstrip("\r")
