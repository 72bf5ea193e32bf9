"""What one match says of another: that it can never be true alone, or never without the other.

Floor 1, pure. Only what can be proven is said; `False` means that nobody knows. A formula is an expression
as far as logic sees it: conjunctions, alternatives, negations, and leaves that are compared with a few texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from extproc.pb.ai_policy.v1.checked_expr_pb2 import Expr
from extproc.policy.needs import TEXTS, Need, leaf
from extproc.policy.nodes import kind_of, spelling, walk

AND = "&&"
OR = "||"
NOT = "!"
LEAF = "leaf"
TRUE = "true"
FALSE = "false"

_OPERATORS = {"_&&_": AND, "_||_": OR, "!_": NOT}


@dataclass(frozen=True, slots=True)
class Formula:
    """One node; `need` is when a leaf is true, exactly, where that is known."""

    operator: str
    spelling: bytes  # equal for formulas that say the same in the same words
    operands: tuple[Formula, ...] = ()
    need: Need | None = None

    @property
    def is_sure(self) -> bool:
        """Whether no request makes it fail."""
        if self.operator == LEAF:
            return self.need is not None
        return all(operand.is_sure for operand in self.operands)

    @property
    def leaves(self) -> int:
        """How many comparisons it is made of."""
        return sum(operand.leaves for operand in self.operands) or 1


def formula(root: Expr) -> Formula:
    """The formula of an expression."""
    if any(kind_of(node) == "comprehension_expr" for node in walk(root)):
        # cel-cpp gives up on one that runs too long, together with what surrounds it.
        return Formula(LEAF, spelling(root))
    return _formula(root)


def implies(one: Formula, other: Formula) -> bool:
    """Whether `other` is true wherever `one` is."""
    if other.operator == TRUE or one.operator == FALSE or one.spelling == other.spelling:
        return True
    if one.operator == OR:
        return all(implies(each, other) for each in one.operands)
    if other.operator == AND:
        return all(implies(one, each) for each in other.operands)
    if one.operator == AND or other.operator == OR:
        return any(implies(each, other) for each in _parts(one, AND)) or any(
            implies(one, each) for each in _parts(other, OR)
        )
    if one.operator == other.operator == NOT:
        (inner,), (outer,) = one.operands, other.operands
        return outer.is_sure and implies(outer, inner)
    return one.need is not None and other.need is not None and _covers(other.need, one.need)


def _parts(one: Formula, operator: str) -> tuple[Formula, ...]:
    return one.operands if one.operator == operator else ()


def never(one: Formula) -> bool:
    """Whether it is true for no request."""
    if one.operator == AND:
        return any(map(never, one.operands)) or any(_exclude(*pair) for pair in combinations(one.operands, 2))
    if one.operator == OR:
        return all(map(never, one.operands))
    if one.operator == NOT:
        return one.operands[0].operator == TRUE
    return one.operator == FALSE


def _formula(node: Expr) -> Formula:
    operator = _OPERATORS.get(node.call_expr.function) if kind_of(node) == "call_expr" else None
    if operator is None:
        if node.const_expr.WhichOneof("constant_kind") == "bool_value":
            return Formula(TRUE if node.const_expr.bool_value else FALSE, spelling(node))
        need = leaf(node)
        return Formula(LEAF, spelling(node), need=need if need and need.fact.is_sure else None)
    operands = tuple(_flat(operator, map(_formula, node.call_expr.args)))
    need = _values(Formula(operator, b"", operands)) if operator == OR else None
    if need is not None:
        return Formula(LEAF, spelling(node), need=need)
    return Formula(operator, spelling(node), operands)


def _flat(operator: str, operands: Iterable[Formula]) -> Iterable[Formula]:
    """`(a && b) && c` has three operands."""
    for operand in operands:
        yield from operand.operands if operand.operator == operator != NOT else (operand,)


def _covers(wide: Need, narrow: Need) -> bool:
    """Whether every value that `narrow` names is one that `wide` names."""
    if wide.fact != narrow.fact or (narrow.is_prefix and not wide.is_prefix):
        return False
    if not wide.is_prefix:
        return narrow.values <= wide.values
    return all(any((value or "").startswith(each or "") for each in wide.values) for value in narrow.values)


def _exclude(one: Formula, other: Formula) -> bool:
    """Whether both are never true of the same request."""
    if NOT in (one.operator, other.operator):
        negated, plain = (one, other) if one.operator == NOT else (other, one)
        return implies(plain, negated.operands[0])
    first, second = _values(one), _values(other)
    if first is None or second is None or first.fact != second.fact:
        return False
    return not any(_meet(first, a or "", second, b or "") for a in first.values for b in second.values)


def _meet(first: Need, a: str, second: Need, b: str) -> bool:
    """Whether one text can be what both say of it."""
    return a == b or (first.is_prefix and b.startswith(a)) or (second.is_prefix and a.startswith(b))


def _values(one: Formula) -> Need | None:
    """The texts of one fact that make it true, alternatives included; lists hold several at once."""
    if one.operator == OR:
        needs = [_values(each) for each in one.operands]
        known = [need for need in needs if need is not None]
        is_one = len(known) == len(needs) and len({(need.fact, need.is_prefix) for need in known}) == 1
        values = frozenset[str | None]().union(*(need.values for need in known))
        return Need(known[0].fact, values, known[0].is_prefix) if is_one else None
    need = one.need
    return need if need is not None and (need.fact.path in TEXTS or need.fact.is_entry) else None
