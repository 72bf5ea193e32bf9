"""Decisions under policy folders of any size: from the headers to the settlement, without the network.

Half of the policies are access rules and half are limits; each concerns a team of its own, and the
caller is in the first one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from bench.errors import BenchFailed
from bench.rows import OUT_OF_REACH
from bench.turns import Turn
from bench.workloads import KEY
from extproc.decision import Charge, Denial
from extproc.model import AIRequest, RequestHead, TokenEstimate
from extproc.policy import policyset
from extproc.policy.engine import Evaluation
from extproc.policy.index import Index
from extproc.policy.policyset import PolicySet
from extproc.store.memory import MemoryStore

AT_NS = 1_800_000_000 * 10**9
AT_US = AT_NS // 1_000

_HEAD = RequestHead(
    method="POST",
    host="127.0.0.1",
    path="/v1/chat/completions",
    headers={"authorization": f"Bearer {KEY}", "content-type": "application/json", "user-agent": "bench"},
)
_REQUEST = AIRequest(
    api="openai_chat", provider="openai", operation="chat", model="gpt-4o-mini", models=("gpt-4o-mini",)
)
_TOKENS = TokenEstimate(input=20, max_output=16_384)
_SPENT = 21

_HEADING = "---\napiVersion: ai-policy/v1\nkind: {}\nmetadata: {{name: {}}}\nspec:\n  {}\n"
_ALWAYS = (
    ("Defaults", "main", "access: deny"),
    ("Identity", "callers", "sources: [{apiKey: {}}]"),
    (
        "ApiKey",
        "caller",
        f"{{sha256: {hashlib.sha256(KEY.encode()).hexdigest()}, user: user-0, team: team-0}}",
    ),
    ("AccessRule", "everybody", "effect: allow"),
)

T = TypeVar("T")


def turns(sizes: Sequence[int]) -> Iterator[Turn]:
    """Two rows a folder: its policies found by their index, and all of them asked."""
    for size in sizes:
        policies = folder(size)
        plural = "policy" if size == 1 else "policies"
        yield Turn(name=f"{size:,} {plural}", run=Decider(policies).decide)
        yield Turn(name=f"{size:,} {plural}, all asked", run=Decider(without_index(policies)).decide)


def folder(size: int) -> PolicySet:
    """So many policies, beside those that every folder here has."""
    written = [_HEADING.format(*item) for item in (*_ALWAYS, *map(_policy, range(size)))]
    with TemporaryDirectory(prefix="bench-") as path:
        (Path(path) / "policies.yaml").write_text("".join(written))
        return policyset.load(Path(path))


def _policy(number: int) -> tuple[str, str, str]:
    team = f'identity.team == "team-{number}"'
    if number % 2:
        return (
            "AccessRule",
            f"rule-{number}",
            f"{{effect: deny, match: '{team} && request.model.startsWith(\"gpt-4\")'}}",
        )
    limit = f"{{tokens: {OUT_OF_REACH}, per: 1m}}"
    return "RateLimit", f"limit-{number}", f"{{match: '{team}', key: [identity.user], limit: {limit}}}"


def without_index(policies: PolicySet) -> PolicySet:
    """The same policies, each of which is asked about each request."""
    asked = replace(policies)
    for name in ("early_rules", "late_rules", "limit_index"):
        vars(asked)[name] = Index((item, ()) for item in getattr(policies, name).items)
    return asked


class Decider:
    """Decides on one request, over and over; every decision reserves and settles."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._store = MemoryStore()
        self._ids = map(str, itertools.count())

    def decide(self, count: int) -> None:
        """So many times. Raises `BenchFailed` where it is denied."""
        for _ in range(count):
            self._decide(next(self._ids))

    def _decide(self, decision_id: str) -> None:
        evaluation = Evaluation(self._policies, decision_id=decision_id, head=_HEAD, at_ns=AT_NS)
        denial = evaluation.check_headers() or evaluation.check_body(_REQUEST, _TOKENS, AT_NS)
        charges = denial or evaluation.charges(None)
        if isinstance(charges, Denial):
            raise BenchFailed(charges.message)
        outcomes = at_once(self._store.reserve(decision_id, charges, AT_US))
        denial = evaluation.check_limits(outcomes)
        if denial is not None or not charges:
            raise BenchFailed(denial.message if denial else "no limit was charged")
        evaluation.decision(AT_NS)
        at_once(self._store.settle(decision_id, spent(charges), AT_US))


def spent(charges: Sequence[Charge]) -> dict[str, int]:
    """What an answer takes of each counter in the end."""
    return {charge.counter: _SPENT for charge in charges}


def a_charge() -> Charge:
    """What the limit of this folder takes for its request."""
    evaluation = Evaluation(folder(1), decision_id="", head=_HEAD, at_ns=AT_NS)
    evaluation.check_headers()
    evaluation.check_body(_REQUEST, _TOKENS, AT_NS)
    charges = evaluation.charges(None)
    if isinstance(charges, Denial):
        raise BenchFailed(charges.message)
    (charge,) = charges
    return charge


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The answer of a store that never waits."""
    try:
        call.send(None)
    except StopIteration as answer:
        found: T = answer.value
        return found
    raise BenchFailed("the memory store waited for something")
