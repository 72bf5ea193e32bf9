"""YAML documents as data that remembers where each value was written.

Floor 1, pure: text in, values and positions out. YAML 1.2's core types only, so `off`, `on`, `no`
and dates are strings. What the values mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import yaml

from extproc.errors import Problem

Path = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
# Aliases can unfold a small file into a huge value; no folder of policies comes near this.
_MAX_NODES: Final = 100_000


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's scanner and composer with the implicit types of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own class attribute, replaced


# Section 10.3.2 of the YAML 1.2.2 specification.
_SCALARS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "null": re.compile(r"~|null|Null|NULL|"),
        "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
        "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
        "float": re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
    }
)
for _name, _pattern in _SCALARS.items():
    _CoreLoader.add_implicit_resolver(_CORE + _name, re.compile(f"(?:{_pattern.pattern})\\Z"), None)


def _integer(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan") if "." in text[:2] else text)


_VALUES: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "null": lambda _: None,
        "bool": lambda text: text.lower() == "true",
        "int": _integer,
        "float": lambda text: _float(text.lower()),
        "str": str,
    }
)


# In double quotes, what stands for white space after a backslash; the newline is a folded line.
_WHITE_ESCAPES = frozenset("ntrvf \t\nNLP_")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, and the nodes it was read from."""

    file: str
    source: str  # the whole file
    value: Any
    nodes: Mapping[Path, yaml.Node]
    keys: Mapping[Path, yaml.Node]

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem at the value (or the key) that `path` names, or at what comes nearest to it."""
        node = self.keys.get(path) if at_key else None
        while node is None:
            node = self.nodes.get(path)
            path = path[:-1]
        return _problem(self.file, node.start_mark, message)

    def problem_inside(self, path: Path, offset: int, message: str) -> Problem:
        """A problem at character `offset` of the string that `path` names."""
        node = self.nodes.get(path)
        if not isinstance(node, yaml.ScalarNode):
            return self.problem(path, message)
        origin = _origin(self.source, node, offset)
        before = self.source[:origin]
        line_start = before.rfind("\n") + 1
        return Problem(self.file, before.count("\n") + 1, origin - line_start + 1, message)


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(slots=True)
class _Builder:
    """Turns the nodes of one document into values; collects what is wrong and goes on."""

    file: str
    problems: list[Problem]
    nodes: dict[Path, yaml.Node] = field(default_factory=dict)
    keys: dict[Path, yaml.Node] = field(default_factory=dict)

    def build(self, node: yaml.Node, path: Path = ()) -> Any:
        if len(self.nodes) >= _MAX_NODES:
            raise _Refused(_problem(self.file, node.start_mark, f"more than {_MAX_NODES} values"))
        self.nodes[path] = node
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        return self._report(node, f"the tag {node.tag} is not accepted; use plain YAML values")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != f"{_CORE}str" or not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, "a key must be a string; put it in quotes")
            elif key_node.value == "<<" and key_node.style is None:
                self._report(key_node, "merge keys are not accepted; write the fields out")
            elif key_node.value in value:
                self._report(key_node, f"the key {key_node.value!r} is there twice")
            else:
                child = (*path, key_node.value)
                self.keys[child] = key_node
                value[key_node.value] = self.build(value_node, child)
        return value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        name = node.tag.removeprefix(_CORE)
        pattern = _SCALARS.get(name)
        if name not in _VALUES or (pattern is not None and not pattern.fullmatch(node.value)):
            return self._report(node, f"the tag {node.tag} is not accepted here; use plain YAML values")
        try:
            return _VALUES[name](node.value)
        except ValueError:
            return self._report(node, "this number is too long")

    def _report(self, node: yaml.Node, message: str) -> None:
        self.problems.append(_problem(self.file, node.start_mark, message))


def read(file: str, content: bytes) -> tuple[list[Document], list[Problem]]:
    """The non-empty documents of one file, and everything wrong with its YAML; never raises."""
    try:
        source = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [Problem(file, line, 1, "this is not UTF-8 text")]
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        for root in yaml.compose_all(source, _CoreLoader):
            builder = _Builder(file, problems)
            value = builder.build(root)
            if value is not None:
                documents.append(Document(file, source, value, builder.nodes, builder.keys))
    except _Refused as refused:
        problems.append(refused.problem)
    except yaml.MarkedYAMLError as error:
        problems.append(_problem(file, error.problem_mark or error.context_mark, _said(error.problem or "")))
    except yaml.YAMLError:
        problems.append(Problem(file, 1, 1, "the file holds characters that YAML does not allow"))
    except RecursionError:
        problems.append(Problem(file, 1, 1, "the values are nested too deeply"))
    return documents, problems


# What PyYAML says, and what whoever wrote it should do.
_REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "'\\t'": "a tab cannot indent; use spaces",
        "cannot start any token": "no value can begin with this character; put the value in quotes",
        "mapping values are not allowed": "a colon is not expected here; put text that holds one in quotes",
        "could not find expected ':'": "a colon is missing after a field's name",
        "expected ',' or": "a bracket is not closed, or text that holds one or a comma is not in quotes",
        "expected <block end>": "this line is indented otherwise than those it belongs to",
        "end of stream": "a quote is not closed",
        "undefined alias": "no anchor of this name comes before",
        "duplicate anchor": "an anchor of this name is there already",
        "unknown escape": "no such escape; in single quotes a backslash is a backslash",
    }
)


def _said(problem: str) -> str:
    """The parser's complaint in the words of people, else its own."""
    found = next((remedy for words, remedy in _REMEDIES.items() if words in problem), problem)
    return f"this is no YAML: {found or 'its structure cannot be read'}"


def _problem(file: str, mark: Any, message: str) -> Problem:
    return Problem(file, mark.line + 1, mark.column + 1, message) if mark else Problem(file, 0, 0, message)


def _origin(source: str, node: yaml.ScalarNode, offset: int) -> int:
    """Where in `source` the character `offset` of a scalar's value was written.

    Folding and indentation change white space only, so value and source are walked together.
    """
    where = end = node.start_mark.index
    for start, after in _characters(source, node, node.value[: offset + 1]):
        where, end = start, after
    return where if offset < len(node.value) else end


def _characters(source: str, node: yaml.ScalarNode, value: str) -> Iterator[tuple[int, int]]:
    """Start and end in `source` of each character of `value`; white space counts as where it begins."""
    at = node.start_mark.index
    if node.style in ("|", ">"):
        at = source.index("\n", at) + 1 if "\n" in source[at:] else at
    elif node.style:
        at += 1
    for character in value:
        if character.isspace():
            yield at, at
            continue
        at = _skip_white(source, at, quoted=node.style == '"')
        after = min(at + _width(source, at, node.style), node.end_mark.index)
        yield at, after
        at = after


def _skip_white(source: str, at: int, *, quoted: bool) -> int:
    while at < len(source):
        if source[at].isspace():
            at += 1
        elif quoted and source[at] == "\\" and source[at + 1 : at + 2] in _WHITE_ESCAPES:
            at += 2
        else:
            break
    return at


def _width(source: str, at: int, style: str | None) -> int:
    """How many source characters spell the one at `at`."""
    if style == "'" and source[at : at + 2] == "''":
        return 2
    if style == '"' and source[at : at + 1] == "\\":
        return {"x": 4, "u": 6, "U": 10}.get(source[at + 1 : at + 2], 2)
    return 1
