"""Who can call a folder at all, and what its expressions ask of callers that nobody can be.

Floor 1, pure. A folder knows every value of a fact where only its own objects say it: teams of ApiKeys and
of client certificates. Tokens and headers say what they like; of them nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from extproc.decision import Effect, Mode
from extproc.errors import Problem
from extproc.policy import cel, literals
from extproc.policy.cel import Expression
from extproc.policy.documents import Path
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.identity import Identity, IdentitySource
from extproc.policy.lints import Placed
from extproc.policy.nodes import walk
from extproc.policy.objects import Block
from extproc.policy.suggest import did_you_mean

# What stands behind `identity.`; None: anything.
Values = dict[str, frozenset[str] | None]

_TEXTS: Final = ("user", "team", "org")
_ALL: Final = ("id", *_TEXTS, "groups", "labels", "claims")
_MOST_SHOWN: Final = 10


def problems(objects: Sequence[Placed]) -> Iterator[Problem]:
    """What the folder asks of callers in vain, and callers that it keeps out."""
    identity = next((placed for placed in objects if isinstance(placed.item.spec, Identity)), None)
    if identity is not None and identity.item.mode is not Mode.DISABLED:
        yield from _sources(identity, objects)
    if identity is None or identity.item.mode is not Mode.DISABLED:
        values = _values(objects)
        for placed in objects:
            if placed.item.mode is not Mode.DISABLED:
                for path, expression in _expressions(placed.item.spec):
                    yield from _asked_in_vain(placed, path, expression, values)
    yield from _unread_keys(identity, objects)


# --- what callers can be


def _values(objects: Iterable[Placed]) -> Values:
    """Every value that a fact about a caller can have, besides none."""
    found: dict[str, set[str]] = {name: set() for name in _ALL}
    anything: set[str] = set()
    sources = [
        source
        for placed in objects
        if isinstance(placed.item.spec, Identity)
        for source in placed.item.spec.sources
    ]
    if any(source.api_key for source in sources):
        for placed in objects:
            if isinstance(placed.item.spec, ApiKey):
                _add(found, placed.item.spec)
                found["id"].add(placed.item.spec.user or placed.item.ref.name)
    for source in sources:
        if source.mtls:
            anything.add("id")
            for principal in source.mtls.principals:
                _add(found, principal)
        if source.jwt:
            given = source.jwt.claims
            anything |= {"id", "claims"} | {name for name in (*_TEXTS, "groups") if getattr(given, name)}
        if source.headers:
            names = source.headers
            anything |= {"id"} | {name for name in (*_TEXTS, "groups") if getattr(names, name)}
    return {name: None if name in anything else frozenset(texts) for name, texts in found.items()}


def _add(found: Mapping[str, set[str]], holder: Any) -> None:
    """What an ApiKey or a principal says of its holder."""
    for name in _TEXTS:
        found[name] |= {getattr(holder, name)} - {""}
    found["groups"].update(holder.groups)
    found["labels"].update(holder.labels)


# --- what expressions ask of them


def _expressions(block: Block, path: Path = ("spec",)) -> Iterator[tuple[Path, Expression]]:
    """Every expression of a block, with where it is written."""
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        here = (*path, field.alias or name)
        if isinstance(value, Expression):
            yield here, value
        for index, part in enumerate(value if isinstance(value, tuple) else ()):
            if isinstance(part, Expression):
                yield (*here, index), part


def _asked_in_vain(placed: Placed, path: Path, expression: Expression, values: Values) -> Iterator[Problem]:
    asked = [fact for fact in expression.reads if fact.startswith("identity.")]
    if not asked:
        return
    name = expression.text.strip().removeprefix("identity.")
    if path[1] == "key" and values.get(name) == frozenset():
        yield placed.problem(
            path, f"{expression.text} is always empty: {_nobody_has(name)}, so all share a counter"
        )
        return
    checked = cel.tree(expression)
    for node in walk(checked.expr):
        for fact, literal in literals.comparisons(node):
            message = _vain(fact.removeprefix("identity."), literal.text, values) if fact in asked else ""
            if message:
                offset = checked.source_info.positions[literal.node_id]
                yield placed.document.problem_inside(path, offset, message)


def _vain(name: str, text: str, values: Values) -> str:
    """Why no caller ever has this text there, or an empty string."""
    known = values.get(name)
    if known is None or not text or text in known:
        return ""
    if not known:
        return f"identity.{name} is always empty: {_nobody_has(name)}"
    shown = sorted(known)[:_MOST_SHOWN]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    what = f"no caller has the label {text!r}" if name == "labels" else f"identity.{name} is never {text!r}"
    return f"{what}; ApiKeys and Identity say {', '.join(shown)}{more}{did_you_mean(text, known)}"


def _nobody_has(name: str) -> str:
    if name == "claims":
        return "no source of an Identity is a jwt"
    return f"no ApiKey and no source of an Identity says {name}"


# --- where callers are looked for


def _sources(identity: Placed, objects: Iterable[Placed]) -> Iterator[Problem]:
    spec = identity.item.spec
    if not isinstance(spec, Identity):
        return
    if not spec.sources and spec.anonymous is Effect.DENY:
        yield identity.problem(
            ("spec", "sources"), "nobody can call: there is no source, and anonymous is deny"
        )
    has_keys = any(isinstance(placed.item.spec, ApiKey) for placed in objects)
    for index, source in enumerate(spec.sources):
        here: Path = ("spec", "sources", index)
        if source in spec.sources[:index]:
            yield identity.problem(here, "this source is there twice")
        elif source.api_key and not has_keys:
            yield identity.problem((*here, "apiKey"), "there is no ApiKey, so no key is ever known")
        elif source.jwt and _takes_tokens(spec.sources[:index], source.jwt.header):
            yield identity.problem(
                (*here, "jwt"),
                f"an apiKey source above takes every bearer token in {source.jwt.header} for a key; "
                "put this one first",
            )
        if source.headers and not source.headers.trusted_from.principals:
            yield from _trusts_everybody(identity, here, source)


def _takes_tokens(sources: Iterable[IdentitySource], header: str) -> bool:
    return any(source.api_key and (header, "bearer") in source.api_key.headers for source in sources)


def _trusts_everybody(identity: Placed, here: Path, source: IdentitySource) -> Iterator[Problem]:
    for index, network in enumerate(source.headers.trusted_from.addresses if source.headers else ()):
        if network.prefixlen == 0:
            path = (*here, "headers", "trustedFrom", "addresses", index)
            yield identity.problem(path, "everybody is trusted: any client can say who it is")


def _unread_keys(identity: Placed | None, objects: Iterable[Placed]) -> Iterator[Problem]:
    """ApiKeys that no source reads; the first of them stands for all."""
    spec = identity.item.spec if identity else None
    if isinstance(spec, Identity) and any(source.api_key for source in spec.sources):
        return
    keys = [
        placed for placed in objects if isinstance(placed.item.spec, ApiKey) and not placed.item.spec.disabled
    ]
    if keys:
        others = f", nor {len(keys) - 1} more" if len(keys) > 1 else ""
        yield keys[0].problem(
            ("metadata", "name"),
            f"nobody can use {keys[0].item.ref}{others}: no Identity has a source apiKey",
        )
