"""What a match cannot do without: facts that must be one of a few texts.

Floor 1, pure: walks `Expr` trees. Where a need is not met, the match is false: not true, and no error
either, so whoever leaves the policy out leaves out nothing that `onError` would have decided. This holds
because a false operand of CEL's `&&` makes it false whatever the other one is, an error included. One
thing is stronger: cel-cpp gives up on a comprehension that runs too long, and what stands to its right
is never looked at. So nothing there counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1.checked_expr_pb2 import Expr
from extproc.policy.nodes import fact_of, kind_of, literal_of, walk

_LOOKUP = frozenset({"_[_]"})
_OPTIONAL_LOOKUP = frozenset({"_[?_]", "_?._"})


@dataclass(frozen=True, slots=True)
class Fact:
    """Where a text is found: a field, or one entry of a map, which is `default` where it is missing."""

    path: str  # `variable.field`; a list or, without a key, a map: any of its elements or keys
    key: str = ""
    is_entry: bool = False
    default: str | None = None

    @property
    def is_sure(self) -> bool:
        """Whether reading it cannot fail."""
        return not self.is_entry or self.default is not None


@dataclass(frozen=True, slots=True)
class Need:
    """One of `values`, or a text beginning with one, must be there; None is an entry that is missing.

    A missing entry fails the match where it is read, which no policy may be left out for.
    """

    fact: Fact
    values: frozenset[str | None]
    is_prefix: bool = False


_Needs = dict[Fact, Need]


def needs(root: Expr) -> tuple[Need, ...]:
    """Everything that a match needs, at most one need a fact."""
    return tuple(_needs(root).values())


def leaf(node: Expr) -> Need | None:
    """When one comparison is true: if and only if this need is met, and its fact is sure."""
    read = _LEAVES.get(node.call_expr.function)
    return read(node) if read else None


def _needs(node: Expr) -> _Needs:
    function = node.call_expr.function
    if function == "_&&_":
        return _of_all(node.call_expr.args)
    if function == "_||_":
        return reduce(_either, map(_needs, node.call_expr.args))
    if kind_of(node) == "select_expr":
        return _presence(node)
    need = leaf(node)
    return {need.fact: need} if need else {}


def _of_all(operands: Iterable[Expr]) -> _Needs:
    found: _Needs = {}
    for operand in operands:
        for fact, need in _needs(operand).items():
            earlier = found.get(fact)
            if earlier is None or len(need.values) < len(earlier.values):
                found[fact] = need
        if _may_give_up(operand):
            break
    return found


def _either(left: _Needs, right: _Needs) -> _Needs:
    """What both sides need; an equality is a prefix too."""
    return {
        fact: Need(
            fact, left[fact].values | right[fact].values, left[fact].is_prefix or right[fact].is_prefix
        )
        for fact in left.keys() & right.keys()
    }


def _may_give_up(node: Expr) -> bool:
    return any(kind_of(inner) == "comprehension_expr" for inner in walk(node))


# --- one comparison


def _equality(node: Expr) -> Need | None:
    left, right = node.call_expr.args
    return _one_of(left, [right]) or _one_of(right, [left])


def _membership(node: Expr) -> Need | None:
    left, right = node.call_expr.args
    if kind_of(right) == "list_expr":
        return _one_of(left, right.list_expr.elements)
    path, literal = fact_of(right), literal_of(left)
    return Need(Fact(path), frozenset({literal.text})) if path in _COLLECTIONS and literal else None


def _beginning(node: Expr) -> Need | None:
    fact, literal = _text(node.call_expr.target), literal_of(node.call_expr.args[0])
    return _need(fact, [literal.text], is_prefix=True) if fact and literal else None


def _presence(node: Expr) -> _Needs:
    """`has(request.headers.name)`."""
    select = node.select_expr
    fact = Fact(fact_of(select.operand))
    if not select.test_only or fact.path not in MAPS:
        return {}
    return {fact: Need(fact, frozenset({select.field}))}


def _one_of(node: Expr, values: Iterable[Expr]) -> Need | None:
    fact, literals = _text(node), [literal_of(value) for value in values]
    known = [literal.text for literal in literals if literal]
    return _need(fact, known) if fact and len(known) == len(literals) else None


def _need(fact: Fact, values: Iterable[str], *, is_prefix: bool = False) -> Need:
    missing = frozenset[str | None]() if fact.is_sure else frozenset({None})
    return Need(fact, missing.union(values), is_prefix)


_LEAVES: Mapping[str, Callable[[Expr], Need | None]] = MappingProxyType(
    {"_==_": _equality, "@in": _membership, "startsWith": _beginning}
)


# --- one text


def _text(node: Expr) -> Fact | None:
    """The fact that a node is the text of."""
    path = fact_of(node)
    if path in TEXTS:
        return Fact(path)
    if kind_of(node) == "select_expr":
        select = node.select_expr
        return _entry(fact_of(select.operand), select.field)
    call = node.call_expr
    if call.function in _LOOKUP:
        return _looked_up(node)
    if call.function == "orValue" and call.target.call_expr.function in _OPTIONAL_LOOKUP:
        fact, default = _looked_up(call.target), literal_of(call.args[0])
        return Fact(fact.path, fact.key, is_entry=True, default=default.text) if fact and default else None
    return None


def _looked_up(node: Expr) -> Fact | None:
    name = literal_of(node.call_expr.args[1])
    return _entry(fact_of(node.call_expr.args[0]), name.text) if name else None


def _entry(path: str, key: str) -> Fact | None:
    return Fact(path, key, is_entry=True) if path in MAPS else None


# --- what the facts are made of


def _paths(*, of: str, repeated: bool) -> frozenset[str]:
    """The facts of texts with this shape; every map is one of texts to texts."""
    return frozenset(
        f"{variable.name}.{field.name}"
        for variable in facts_pb2.Facts.DESCRIPTOR.fields
        if variable.message_type
        for field in variable.message_type.fields
        if field.is_repeated is repeated and _element(field) == of
    )


def _element(field: Any) -> str:  # of either implementation of protobuf
    if field.type == FieldDescriptor.TYPE_STRING:
        return "text"
    return "entry" if field.message_type and field.message_type.GetOptions().map_entry else ""


TEXTS = _paths(of="text", repeated=False)
LISTS = _paths(of="text", repeated=True)
MAPS = _paths(of="entry", repeated=True)
_COLLECTIONS = LISTS | MAPS
