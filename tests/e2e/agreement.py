"""Whether everybody who keeps account of the same requests says the same, to the token and the nano-dollar.

Pure: the records of each source are values, joined by decision id; a disagreement is a sentence. Money
is nano-dollars; None is what a source does not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

Amounts = tuple[int, int, int, int, int]  # requests, tokens, input, output, nano-dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a client, or its SDK, saw of its request."""

    decision_id: str
    status: int  # 0: it left before the answer
    is_whole: bool = True  # nobody cut it
    body_ids: tuple[str, ...] = ()  # decision ids in the body of an error
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A line of Envoy's access log; its figures are the estimate's until there is a cost."""

    decision_id: str
    status: int
    flags: str  # Envoy's for what went wrong
    enforced_effect: str
    policy: str
    team: str
    model: str
    input_tokens: int
    output_tokens: int
    nano_usd: int | None

    @property
    def is_whole(self) -> bool:
        """The answer passed as the provider gave it."""
        return self.flags == "-"

    @property
    def is_envoys_own(self) -> bool:
        """The provider's answer broke off before a byte of it had gone out."""
        return self.flags == "UPE" and self.status == 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The span of a verdict."""

    decision_id: str
    trace_id: str
    effect: str
    enforced_effect: str
    reason: str
    policy: str
    team: str
    provider: str
    input_estimate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """The span of a provider's work."""

    decision_id: str
    trace_id: str
    basis: str
    status: int
    input_tokens: int
    output_tokens: int
    nano_usd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision in the ledger."""

    decision_id: str
    trace_id: str
    effect: str
    enforced_effect: str
    reason: str
    policy: str
    team: str
    provider: str
    model: str  # upstream
    input_estimate: int
    denied_with: int  # status; 0 where it was allowed
    would_deny: tuple[str, ...] = ()  # shadow policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What an allowed decision came to, in the ledger."""

    decision_id: str
    basis: str
    status: int
    input_tokens: int
    output_tokens: int
    nano_usd: int | None
    charged: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the provider wrote down of a request that reached it."""

    decision_id: str
    status: int  # 0: it was silent to the end
    model: str
    input_tokens: int
    output_tokens: int
    tells_zero: bool = False  # whatever was used


Sums = Mapping[tuple[str, ...], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Everybody's records of the same requests."""

    clients: Sequence[Answered]
    access_log: Sequence[Logged]
    decide_spans: Sequence[Decided]
    work_spans: Sequence[Worked]
    decisions: Sequence[Recorded]
    endings: Sequence[Ended]
    books: Sequence[Booked]
    books_totals: tuple[int, int, int]  # requests, input, output
    metrics: Sums  # by name and labels
    counters: Mapping[str, Amounts]  # by team


SOURCES = ("clients", "access_log", "decide_spans", "work_spans", "decisions", "endings", "books")
_OF_ALL = ("clients", "access_log", "decide_spans")
_OF_ALLOWED = ("endings", "work_spans", "books")
_ESTIMATES = frozenset({"reserved", "tokenizer", "partial", "bytes"})


def disagreements(accounts: Accounts) -> list[str]:
    """Every sentence about two sources that do not say the same; empty where all agree."""
    found = [*_presence(accounts), *_sums(accounts)]
    for decision_id, told in _joined(accounts).items():
        found += [f"{decision_id}: {sentence}" for sentence in told.disagreements()]
    return found


# --- who is there


def _presence(accounts: Accounts) -> Iterator[str]:
    decided = {each.decision_id for each in accounts.decisions}
    allowed = {each.decision_id for each in accounts.decisions if each.enforced_effect == "allow"}
    for source in SOURCES:
        ids = Counter(each.decision_id for each in getattr(accounts, source))
        yield from (f"{name}: {count} times in {source}" for name, count in ids.items() if count > 1)
        expected = allowed if source in _OF_ALLOWED else decided
        yield from (f"{name}: in {source}, and should not be" for name in sorted(ids.keys() - expected))
        yield from (f"{name}: missing in {source}" for name in sorted(expected - ids.keys()))


def _joined(accounts: Accounts) -> dict[str, _Told]:
    """The records of one decision, where every source that must have one has it."""
    found: dict[str, dict[str, Any]] = {
        source: {each.decision_id: each for each in getattr(accounts, source)} for source in SOURCES
    }
    return {
        name: _Told(
            client=found["clients"][name],
            logged=found["access_log"][name],
            decided=found["decide_spans"][name],
            worked=found["work_spans"].get(name),
            recorded=recorded,
            ended=found["endings"].get(name),
            booked=found["books"].get(name),
        )
        for name, recorded in found["decisions"].items()
        if all(name in found[source] for source in _OF_ALL)
    }


# --- what they say of one decision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    client: Answered
    logged: Logged
    decided: Decided
    worked: Worked | None
    recorded: Recorded
    ended: Ended | None
    booked: Booked | None

    def disagreements(self) -> Iterator[str]:
        yield from self._of_the_verdict()
        yield from self._of_the_answer()
        if self.recorded.denied_with:
            yield from self._of_a_denial()
        elif self.ended and self.worked and self.booked:
            yield from self._of_the_work(self.ended, self.worked)
            yield from self._of_the_log(self.ended)
            yield from self._of_the_client(self.ended)
            yield from self._of_the_books(self.ended, self.booked)

    def _of_the_verdict(self) -> Iterator[str]:
        for name in (field.name for field in fields(Decided)):
            yield from _same(name, ledger=getattr(self.recorded, name), span=getattr(self.decided, name))
        for name in ("enforced_effect", "policy", "team", "model"):
            yield from _same(name, ledger=getattr(self.recorded, name), log=getattr(self.logged, name))
        is_denied = self.recorded.enforced_effect == "deny"
        yield from _same("denied", ledger=is_denied, status=bool(self.recorded.denied_with))

    def _of_the_answer(self) -> Iterator[str]:
        yield from _same("status", client=self.client.status, log=self.logged.status)
        is_whole = self.logged.is_whole or self.logged.is_envoys_own
        yield from _same("whole", client=self.client.is_whole, log=is_whole)
        others = tuple(name for name in self.client.body_ids if name != self.recorded.decision_id)
        yield from _same("ids in the body", others, ())

    def _of_a_denial(self) -> Iterator[str]:
        yield from _same("status", ledger=self.recorded.denied_with, client=self.client.status)
        yield from _same("id in the body", self.client.body_ids, (self.recorded.decision_id,))
        yield from _same(
            "figures", client=(self.client.input_tokens, self.client.output_tokens), none=(None,) * 2
        )
        yield from self._of_the_estimate()

    def _of_the_estimate(self) -> Iterator[str]:
        log = (self.logged.input_tokens, self.logged.output_tokens, self.logged.nano_usd)
        yield from _same("estimate", log=log, ledger=(self.recorded.input_estimate, 0, None))

    def _of_the_work(self, ended: Ended, worked: Worked) -> Iterator[str]:
        yield from _same("trace_id", ledger=self.recorded.trace_id, work_span=worked.trace_id)
        for name in ("basis", "status", "input_tokens", "output_tokens", "nano_usd"):
            yield from _same(name, ledger=getattr(ended, name), work_span=getattr(worked, name))
        given, made = ended.input_tokens, ended.output_tokens
        billed = (int(ended.basis != "local_reply"), given + made, given, made, ended.nano_usd or 0)
        yield from _same("charge", billed=billed, charged=ended.charged)

    def _of_the_log(self, ended: Ended) -> Iterator[str]:
        """The log has what the answer came to where that was known when its last byte went out."""
        if self.logged.is_whole:
            yield from _same("status", log=self.logged.status, ledger=ended.status)
        if self.logged.nano_usd is None:
            if ended.basis == "provider" and self.logged.is_whole:
                yield "the log says no cost of a whole answer"
            yield from self._of_the_estimate()
            return
        log = (self.logged.input_tokens, self.logged.output_tokens, self.logged.nano_usd)
        yield from _same("figures", log=log, ledger=(ended.input_tokens, ended.output_tokens, ended.nano_usd))

    def _of_the_client(self, ended: Ended) -> Iterator[str]:
        for name in ("input_tokens", "output_tokens"):
            told = getattr(self.client, name)
            if told is not None:
                yield from _same(name, client=told, ledger=getattr(ended, name))

    def _of_the_books(self, ended: Ended, booked: Booked) -> Iterator[str]:
        """The settlement table, against what the provider generated."""
        if booked.tells_zero:
            yield from _same("basis", ledger=ended.basis, told="provider")
        # An error may come before the body is read.
        model = self.recorded.model if booked.input_tokens else ""
        yield from _same("model", ledger=model, provider=booked.model)
        if ended.status or not self.logged.is_envoys_own:
            yield from _same("status", ledger=ended.status, provider=booked.status)
        figures = ended.input_tokens, ended.output_tokens
        generated = booked.input_tokens, booked.output_tokens
        if ended.basis == "provider":
            expected = (0, 0) if booked.tells_zero else generated
            yield from _same("figures", ledger=figures, provider=expected)
        elif ended.basis == "upstream_error":
            yield from _same("figures", ledger=figures, error=(0, 0))
        elif ended.basis not in _ESTIMATES:
            yield f"nobody asked for an ending of basis {ended.basis}"
        elif (self.client.is_whole or ended.basis == "reserved") and figures[1] < generated[1]:
            # Never less, where it was read or measured; more where the vocabulary is not public.
            yield f"output: the ledger says {figures[1]} by {ended.basis}, the provider {generated[1]}"


def _same(what: str, *pair: Hashable, **said: Hashable) -> Iterator[str]:
    """A sentence where the two do not say the same."""
    names = list(said) or ["one", "other"]
    one, other = pair or said.values()
    if one != other:
        yield f"{what}: {names[0]} says {one!r}, {names[1]} {other!r}"


# --- sums


def _sums(accounts: Accounts) -> Iterator[str]:
    expected = _expected(accounts)
    for name in sorted(expected.keys() | accounts.metrics.keys()):
        one, other = expected.get(name, 0), accounts.metrics.get(name, 0)
        if one != other:
            yield f"metric {' '.join(name)}: {other}, by the ledger {one}"
    booked = accounts.books
    sums = len(booked), sum(b.input_tokens for b in booked), sum(b.output_tokens for b in booked)
    yield from _same("totals of the books", said=accounts.books_totals, summed=sums)
    teams = {each.decision_id: each.team for each in accounts.decisions}
    charged: dict[str, Amounts] = {}
    for each in accounts.endings:
        team = teams.get(each.decision_id, "")
        charged[team] = _plus(charged.get(team, (0, 0, 0, 0, 0)), each.charged)
    for team in sorted(charged.keys() | accounts.counters.keys()):
        pair = {"counters": accounts.counters.get(team), "ledger": charged.get(team)}
        yield from _same(f"charged to {team}", **pair)


def _expected(accounts: Accounts) -> Counter[tuple[str, ...]]:
    """The metrics as the ledger has them."""
    sums: Counter[tuple[str, ...]] = Counter()
    providers = {each.decision_id: each.provider for each in accounts.decisions}
    for each in accounts.decisions:
        sums["decisions", each.effect, each.enforced_effect, each.reason] += 1
        if each.enforced_effect == "deny":
            sums["denials", each.policy, each.reason] += 1
        sums.update(("divergence", policy) for policy in each.would_deny)
    for ended in accounts.endings:
        key = ended.basis, providers.get(ended.decision_id, "")
        sums["settlements", *key] += 1
        sums["tokens", *key, "input"] += ended.input_tokens
        sums["tokens", *key, "output"] += ended.output_tokens
        sums["cost", *key] += ended.nano_usd or 0
    return +sums


def _plus(one: Amounts, other: Amounts) -> Amounts:
    a, b, c, d, e = (x + y for x, y in zip(one, other, strict=True))
    return a, b, c, d, e
