"""Nodes of a checked CEL expression: what they are, what is below them, which fact they select.

Floor 1, pure. `Expr` is the compiler's own tree; see proto/ai_policy/v1/checked_expr.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.pb.ai_policy.v1.checked_expr_pb2 import Expr


@dataclass(frozen=True, slots=True)
class Literal:
    """A string in an expression, and the node that holds it."""

    node_id: int
    text: str


def kind_of(node: Expr) -> str:
    """Which of the alternatives the node is, such as `call_expr`."""
    return node.WhichOneof("expr_kind") or ""


def is_identifier(node: Expr) -> bool:
    """Whether the node names a variable."""
    return kind_of(node) == "ident_expr"


def fact_of(node: Expr) -> str:
    """`variable.field` where the node selects exactly that, else an empty string."""
    if kind_of(node) != "select_expr" or not is_identifier(node.select_expr.operand):
        return ""
    return f"{node.select_expr.operand.ident_expr.name}.{node.select_expr.field}"


def literal_of(node: Expr) -> Literal | None:
    """The string that the node is, if it is one."""
    is_string = (
        kind_of(node) == "const_expr" and node.const_expr.WhichOneof("constant_kind") == "string_value"
    )
    return Literal(node.id, node.const_expr.string_value) if is_string else None


def walk(node: Expr) -> Iterator[Expr]:
    """The node and everything below it, parents first; cel-cpp bounds the depth."""
    yield node
    for child in children(node):
        yield from walk(child)


def spelling(node: Expr) -> bytes:
    """Equal for nodes that say the same, wherever they stand."""
    copy = Expr()
    copy.CopyFrom(node)
    for inner in walk(copy):
        inner.id = 0
    return copy.SerializeToString(deterministic=True)


def children(node: Expr) -> list[Expr]:
    """What is directly below the node, in the order of the text."""
    below = _CHILDREN.get(kind_of(node))
    return below(node) if below else []


_CHILDREN: Mapping[str, Callable[[Expr], list[Expr]]] = MappingProxyType(
    {
        "select_expr": lambda node: [node.select_expr.operand],
        "call_expr": lambda node: [
            *([node.call_expr.target] if node.call_expr.HasField("target") else []),
            *node.call_expr.args,
        ],
        "list_expr": lambda node: list(node.list_expr.elements),
        "struct_expr": lambda node: [
            child
            for entry in node.struct_expr.entries
            for child in ([entry.map_key] if entry.HasField("map_key") else []) + [entry.value]
        ],
        "comprehension_expr": lambda node: [
            node.comprehension_expr.iter_range,
            node.comprehension_expr.accu_init,
            node.comprehension_expr.loop_condition,
            node.comprehension_expr.loop_step,
            node.comprehension_expr.result,
        ],
    }
)
