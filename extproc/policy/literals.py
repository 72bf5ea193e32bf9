"""What a checked CEL expression mentions: facts, literals that can never be equal to one, headers.

Floor 1, pure: walks `Expr` trees. The tables say what the facts can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.formats import FORMATS
from extproc.formats.base import OPERATIONS
from extproc.formats.providers import NAMES
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1.checked_expr_pb2 import Expr
from extproc.policy.facts import CREDENTIAL_HEADERS
from extproc.policy.needs import MAPS
from extproc.policy.nodes import (
    Literal,
    children,
    fact_of,
    is_identifier,
    kind_of,
    literal_of,
    spelling,
    walk,
)
from extproc.policy.suggest import did_you_mean

VARIABLES = tuple(facts_pb2.Facts.DESCRIPTOR.fields_by_name)

# Facts of which every possible value is known. The empty string is an unclassified request.
APIS = tuple(sorted(FORMATS))
MODALITIES = ("audio", "file", "image", "text", "video")
METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")

ENUMERATED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "request.api": APIS,
        "request.operation": OPERATIONS,
        "request.modalities": MODALITIES,
        "request.method": METHODS,
        "target.cluster": (),
    }
)
_PROVIDER_FACTS = ("request.provider", "target.provider")
_KEY_FACT = "identity.key"
LOWER_CASE = frozenset({"request.model", "request.models", "target.model"})

_EQUALITY = frozenset({"_==_", "_!=_"})
_PARTS_OF_STRINGS: Mapping[str, Callable[[str, str], bool]] = MappingProxyType(
    {"startsWith": str.startswith, "endsWith": str.endswith, "contains": str.__contains__}
)
_INDEX = frozenset({"_[_]", "_[?_]"})
_OPTIONAL = frozenset({"_[?_]", "_?._"})
_HEADERS = "request.headers"
# Null where no price is known.
_ESTIMATE = "cost.estimated_usd"
_NO_EQUALITY = f"{_ESTIMATE} is an estimate; compare it with <, <=, > or >=, or with null"


def known_values(
    providers: Iterable[str] = NAMES, keys: Iterable[str] | None = None
) -> Mapping[str, tuple[str, ...]]:
    """The facts of which every value is known, given a folder's providers and the names of its ApiKeys."""
    known = {**ENUMERATED, **dict.fromkeys(_PROVIDER_FACTS, tuple(sorted(providers)))}
    return MappingProxyType(known if keys is None else {**known, _KEY_FACT: tuple(sorted(keys))})


# Without any folder.
KNOWN = known_values()


@dataclass(frozen=True, slots=True)
class Impossible:
    """A literal that the fact it is compared with can never hold."""

    node_id: int
    message: str


@dataclass(frozen=True, slots=True)
class Unguarded:
    """A header read where it may be missing; `name` is empty where an expression computes it."""

    node_id: int
    name: str


def reads(root: Expr) -> frozenset[str]:
    """Every fact mentioned, `variable.field`; a variable used as a whole is mentioned by its name."""
    found: set[str] = set()
    selected: set[int] = set()
    for node in walk(root):
        path = fact_of(node)
        if path:
            found.add(path)
            selected.add(node.select_expr.operand.id)
        elif is_identifier(node) and node.id not in selected:
            found.add(node.ident_expr.name)
    return frozenset(path for path in found if path.partition(".")[0] in VARIABLES)


def patterns(root: Expr) -> Iterator[Literal]:
    """The literal regular expressions handed to `matches`."""
    for node in walk(root):
        if kind_of(node) == "call_expr" and node.call_expr.function == "matches" and node.call_expr.args:
            literal = literal_of(node.call_expr.args[-1])
            if literal:
                yield literal


def check(root: Expr, known: Mapping[str, tuple[str, ...]] = KNOWN) -> Iterator[Impossible]:
    """The literals that make a comparison constant; `known` is what facts may be, see `known_values`."""
    for node in walk(root):
        for path, literal in comparisons(node):
            message = _objection(path, literal.text, known)
            if message:
                yield Impossible(literal.node_id, message)
        yield from _impossible_parts(node, known)
        if _compares_estimate(node, null=False):
            yield Impossible(node.id, _NO_EQUALITY)


def unguarded(root: Expr) -> Iterator[Unguarded]:
    """The reads that fail for a request without that header; a test of the same name anywhere guards it."""
    tested: set[bytes] = set()
    read: list[tuple[int, Expr]] = []
    for node, is_forced in _with_force(root):
        name, may_fail = _header(node, is_forced=is_forced)
        if name is not None and may_fail:
            # Only a name in brackets has a place of its own.
            read.append((name.id if node.call_expr.function in _INDEX else node.id, name))
        elif name is not None:
            tested.add(spelling(name))
    for node_id, name in read:
        if spelling(name) not in tested:
            yield Unguarded(node_id, name.const_expr.string_value)


def unpriced(root: Expr) -> Iterator[int]:
    """The reads of the estimated cost that fail where no price is known; a test anywhere guards them."""
    reads: list[int] = []
    for node in walk(root):
        if fact_of(node) == _ESTIMATE and not node.select_expr.test_only:
            reads.append(node.id)
        elif fact_of(node) == _ESTIMATE or _is_optional_estimate(node) or _compares_estimate(node, null=True):
            return
    yield from reads


def _is_optional_estimate(node: Expr) -> bool:
    call = node.call_expr
    is_optional = kind_of(node) == "call_expr" and call.function == "_?._"
    return is_optional and is_identifier(call.args[0]) and call.args[0].ident_expr.name == "cost"


def _compares_estimate(node: Expr, *, null: bool) -> bool:
    """Whether a node asks if the estimate is equal to null, or to anything else: then no null fails it."""
    call = node.call_expr
    if kind_of(node) != "call_expr" or call.function not in _EQUALITY | {"@in"}:
        return False
    has_null = any(arg.const_expr.WhichOneof("constant_kind") == "null_value" for arg in call.args)
    return has_null is null and any(fact_of(arg) == _ESTIMATE for arg in call.args)


def _with_force(root: Expr) -> Iterator[tuple[Expr, bool]]:
    """Every node, and whether it must hold a value: `optional.value()` fails where there is none."""
    yield root, False
    for parent in walk(root):
        is_forced = kind_of(parent) == "call_expr" and parent.call_expr.function == "value"
        for node in children(parent):
            yield node, is_forced


def _header(node: Expr, *, is_forced: bool) -> tuple[Expr | None, bool]:
    """The name of the header that a node asks for, and whether it fails where there is none."""
    select, call, loop = node.select_expr, node.call_expr, node.comprehension_expr
    if kind_of(node) == "select_expr" and fact_of(select.operand) == _HEADERS:
        name = Expr()
        name.const_expr.string_value = select.field
        return name, not select.test_only
    if kind_of(node) == "comprehension_expr" and fact_of(loop.iter_range) == _HEADERS:
        name = Expr()
        name.ident_expr.name = loop.iter_var
        return name, False
    if kind_of(node) == "call_expr" and len(call.args) == 2:  # noqa: PLR2004  binary operators
        left, right = call.args
        if call.function == "@in" and fact_of(right) == _HEADERS:
            return left, False
        if call.function in _INDEX | _OPTIONAL and fact_of(left) == _HEADERS:
            return right, is_forced or call.function not in _OPTIONAL
    return None, False


def comparisons(node: Expr) -> Iterator[tuple[str, Literal]]:
    """Each (fact, literal) that this node itself compares for equality or membership."""
    if kind_of(node) == "select_expr":
        path = fact_of(node.select_expr.operand)
        if path in MAPS:
            yield path, Literal(node.id, node.select_expr.field)
        return
    call = node.call_expr
    if kind_of(node) != "call_expr" or len(call.args) != 2:  # noqa: PLR2004  binary operators
        return
    left, right = call.args
    if call.function in _EQUALITY or call.function in _INDEX:
        yield from _paired(left, [right])
    if call.function in _EQUALITY:
        yield from _paired(right, [left])
    if call.function == "@in":
        yield from _paired(left, right.list_expr.elements)
        yield from _paired(right, [left])


def _paired(fact: Expr, values: Iterable[Expr]) -> Iterator[tuple[str, Literal]]:
    path = fact_of(fact)
    for value in values:
        literal = literal_of(value)
        if path and literal:
            yield path, literal


def _impossible_parts(node: Expr, known: Mapping[str, tuple[str, ...]]) -> Iterator[Impossible]:
    """Beginnings, ends and middles that no value of the fact has."""
    call = node.call_expr
    if kind_of(node) != "call_expr" or call.function not in _PARTS_OF_STRINGS or not call.HasField("target"):
        return
    path, literal = fact_of(call.target), literal_of(call.args[0])
    if not literal:
        return
    if path in LOWER_CASE and literal.text != literal.text.lower():
        yield Impossible(literal.node_id, _lower_case(path, literal.text))
    has_part = _PARTS_OF_STRINGS[call.function]
    if path in known and not any(has_part(value, literal.text) for value in ("", *known[path])):
        yield Impossible(literal.node_id, f"no value of {path} has this part; {_values(path, known[path])}")


def _objection(path: str, text: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """Why the fact can never hold this text, or an empty string."""
    if text and text not in known.get(path, (text,)):
        meant = did_you_mean(text, known[path])
        return f"{path} is never {text!r}; {_values(path, known[path])}{meant}"
    if path in LOWER_CASE and text != text.lower():
        return _lower_case(path, text)
    if path == _HEADERS and text != text.lower():
        return f"header names are lower case: {text.lower()!r}"
    if path == _HEADERS and text in CREDENTIAL_HEADERS:
        return f"the header {text!r} may hold a credential and is not among the facts; use identity"
    return ""


def _values(path: str, values: tuple[str, ...]) -> str:
    if path == _KEY_FACT:
        return "it is the name of an ApiKey in this folder"
    return f"it is one of {', '.join(values)}" if values else "it is always empty, as nothing routes"


def _lower_case(path: str, text: str) -> str:
    return f"{path} is lower case: {text.lower()!r}"
