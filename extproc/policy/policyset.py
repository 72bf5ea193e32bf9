"""A policy folder as one immutable value. It loads whole or not at all.

Floor 1. Reads files, and nothing else from outside; when to read again is `reload`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from extproc.decision import Mode, PolicyRef
from extproc.errors import PolicyFolderInvalid, Problem
from extproc.formats import providers
from extproc.measure.overrides import Overrides
from extproc.policy import documents, lints, literals, schema
from extproc.policy.advice import advise
from extproc.policy.cel import Expression
from extproc.policy.documents import Document
from extproc.policy.findings import Roll
from extproc.policy.index import Index
from extproc.policy.kinds import KINDS
from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.api_key import ApiKey, KeyRing
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.kinds.identity import Identity
from extproc.policy.kinds.price import Price, overrides
from extproc.policy.kinds.provider import Provider
from extproc.policy.kinds.request_cap import RequestCap
from extproc.policy.limited import Limit, LimitSpec
from extproc.policy.lints import Placed
from extproc.policy.objects import Advice, Block, PolicyObject, Spec

_SUFFIXES = frozenset({".yaml", ".yml"})
_REVISION_CHARACTERS = 12

_LIMITS = tuple(sorted(name for name, kind in KINDS.items() if issubclass(kind, LimitSpec)))
# The order of a request; the silent kinds only hold data. Every kind is in one of the two.
STAGES = ("Identity", "AccessRule", "RequestCap", *_LIMITS, "Defaults")
SILENT = frozenset({"ApiKey", "Price", "Provider"})

# A variable as a whole is whatever it holds.
_COST_FACTS = frozenset({"cost", "cost.estimated_usd"})
_COUNTED_FACTS = _COST_FACTS | {"tokens", "tokens.input", "tokens.exact"}

T = TypeVar("T", bound=Spec)
M = TypeVar("M", AccessRule, RequestCap, LimitSpec)


@dataclass(frozen=True)
class PolicySet:
    """Every object of one folder, compiled; `revision` names its content."""

    revision: str
    objects: tuple[PolicyObject[Spec], ...]  # by kind, then name
    advice: tuple[Advice, ...] = ()

    def warnings(self, at_ns: int) -> tuple[Problem, ...]:
        """What its author should look at, at this Unix time; the folder is in force all the same."""
        return tuple(each.problem for each in self.advice if each.since_ns is None or each.since_ns <= at_ns)

    @cached_property
    def speakers(self) -> tuple[PolicyObject[Spec], ...]:
        """The objects that say something about a request, in its order."""
        speaking = (item for item in self.objects if item.ref.kind not in SILENT)
        return tuple(sorted(speaking, key=lambda item: (STAGES.index(item.ref.kind), item.ref.name)))

    @cached_property
    def defaults(self) -> Defaults:
        """The folder's settings."""
        return self.defaults_object.spec

    @cached_property
    def defaults_object(self) -> PolicyObject[Defaults]:
        """The settings with their name."""
        return _of(self.objects, Defaults)[0]

    @cached_property
    def identity(self) -> PolicyObject[Identity] | None:
        """How callers are recognised; None recognises nobody and lets everybody be anonymous."""
        return next(iter(_of(self.objects, Identity)), None)

    @cached_property
    def keys(self) -> KeyRing:
        """Every ApiKey."""
        return KeyRing(_of(self.objects, ApiKey))

    @cached_property
    def providers(self) -> tuple[providers.Provider, ...]:
        """Where else known formats are spoken, the longest base path first."""
        sites = (item.spec.site for item in _of(self.objects, Provider))
        return tuple(sorted(sites, key=lambda site: (not site.hosts, -site.base_path.count("/"))))

    @cached_property
    def roll(self) -> Roll:
        """The speakers, and what their silence means."""
        return Roll(self.speakers)

    @cached_property
    def early_rules(self) -> Index[PolicyObject[AccessRule]]:
        """The active access rules that need only headers, by name."""
        return _index(rule for rule in _of(self.objects, AccessRule) if rule.spec.needs_only_headers)

    @cached_property
    def late_rules(self) -> Index[PolicyObject[AccessRule]]:
        """The active access rules that need the request, by name."""
        return _index(rule for rule in _of(self.objects, AccessRule) if not rule.spec.needs_only_headers)

    @cached_property
    def request_cap_index(self) -> Index[PolicyObject[RequestCap]]:
        """The active request caps, by name."""
        return _index(_of(self.objects, RequestCap))

    @cached_property
    def needs_token_counts(self) -> bool:
        """Whether any object asks how many tokens the input has; the bound by bytes is no count."""
        active = self._active
        limited = any(isinstance(spec, LimitSpec | RequestCap) and spec.needs_token_counts for spec in active)
        return limited or any(_reads_any(spec, _COUNTED_FACTS) for spec in active)

    @cached_property
    def needs_cost_estimates(self) -> bool:
        """Whether any expression asks what the request may cost."""
        return any(_reads_any(spec, _COST_FACTS) for spec in self._active)

    @property
    def _active(self) -> list[Spec]:
        return [item.spec for item in self.objects if item.mode is not Mode.DISABLED]

    @cached_property
    def prices(self) -> Overrides:
        """What the folder says of money."""
        return overrides(_of(self.objects, Price), self.revision)

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """Everything that counts, by kind, then name."""
        found = (item for item in self.objects if isinstance(item.spec, LimitSpec))
        return cast("tuple[Limit, ...]", tuple(found))

    @cached_property
    def limits_by_ref(self) -> Mapping[PolicyRef, Limit]:
        """The same, by name."""
        return MappingProxyType({limit.ref: limit for limit in self.limits})

    @cached_property
    def limit_index(self) -> Index[Limit]:
        """The active ones."""
        return _index(self.limits)


def load(folder: Path) -> PolicySet:
    """Read every policy file directly in `folder`. Raises `PolicyFolderInvalid` with all problems."""
    contents, problems = _read(folder)
    written: list[Document] = []
    for name, content in contents.items():
        found, wrong = documents.read(name, content)
        written += found
        problems += wrong
    known = _known_values(written)
    placed: list[Placed] = []
    for document in written:
        loaded, wrong = schema.read(document, known)
        problems += wrong
        if loaded is not None:
            placed.append(Placed(loaded, document))
    problems += lints.repeated(placed)
    # A file that did not load may hold what seems to be missing.
    problems += [] if problems else lints.incomplete(folder, placed)
    if problems:
        raise PolicyFolderInvalid(tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column))))
    objects = sorted((each.item for each in placed), key=lambda item: item.ref)
    return PolicySet(_revision(contents), tuple(objects), advise(placed))


def describe(policies: PolicySet) -> list[dict[str, Any]]:
    """The objects as JSON-safe values; no digest of a key."""
    return [
        {
            "kind": item.ref.kind,
            "name": item.ref.name,
            "mode": str(item.mode),
            "description": item.spec.description,
            "file": item.file,
            "line": item.line,
        }
        for item in policies.objects
    ]


def _reads_any(block: Block, facts: frozenset[str]) -> bool:
    """Whether an expression anywhere in a block reads one of these facts."""
    for name in type(block).model_fields:
        value = getattr(block, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Expression) and not facts.isdisjoint(part.reads):
                return True
            if isinstance(part, Block) and _reads_any(part, facts):
                return True
    return False


def _read(folder: Path) -> tuple[dict[str, bytes], list[Problem]]:
    contents: dict[str, bytes] = {}
    problems: list[Problem] = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise PolicyFolderInvalid((Problem(str(folder), 0, 0, _unreadable(error)),)) from None
    for path in paths:
        # Kubernetes keeps its symlink swap in `..data` and `..2026_...` beside the files.
        if path.suffix not in _SUFFIXES or path.name.startswith(".") or path.is_dir():
            continue
        try:
            contents[path.name] = path.read_bytes()
        except OSError as error:
            problems.append(Problem(path.name, 0, 0, _unreadable(error)))
    return contents, problems


def _known_values(written: Iterable[Document]) -> Mapping[str, tuple[str, ...]]:
    """What facts may be in this folder: expressions are checked against it before any object is whole."""
    names = _texts(written, Provider.__name__, "spec", "provider")
    keys = _texts(written, ApiKey.__name__, "metadata", "name")
    return literals.known_values(providers.NAMES.union(names), keys)


def _texts(written: Iterable[Document], kind: str, block: str, field: str) -> frozenset[str]:
    """What every document of a kind says in a field, where it is a text."""
    of_kind = (
        each.value for each in written if isinstance(each.value, dict) and each.value.get("kind") == kind
    )
    blocks = (value.get(block) for value in of_kind)
    texts = (each.get(field) for each in blocks if isinstance(each, dict))
    return frozenset(text for text in texts if isinstance(text, str))


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or type(error).__name__}"


def _revision(contents: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in contents.items():
        for part in (name.encode("utf-8", "surrogateescape"), content):
            # The length keeps a name's end and a content's begin apart.
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:_REVISION_CHARACTERS]


def _of(objects: Iterable[PolicyObject[Spec]], kind: type[T]) -> tuple[PolicyObject[T], ...]:
    return tuple(item for item in objects if isinstance(item.spec, kind))  # type: ignore[misc]  # narrowed by spec


def _index(objects: Iterable[PolicyObject[M]]) -> Index[PolicyObject[M]]:
    """The active objects by what their matches need."""
    return Index((item, item.spec.match.needs) for item in objects if item.mode is not Mode.DISABLED)
