"""What loads, and is yet not what somebody meant: rules that never matter, callers that nobody can be.

Floor 1, pure. Only what the folder itself proves is said, so that advice is never a false alarm. Who can
call is `callers`', which rules and limits never matter `overlaps`'; what must not load at all is `lints`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from extproc.decision import Effect, Mode
from extproc.errors import Problem
from extproc.policy import callers, overlaps
from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.kinds.identity import Identity
from extproc.policy.kinds.provider import Provider
from extproc.policy.kinds.usage_cap import UsageCap
from extproc.policy.limited import LimitSpec
from extproc.policy.lints import Placed
from extproc.policy.needs import Fact
from extproc.policy.objects import Advice, PolicySpec


def advise(objects: Sequence[Placed]) -> tuple[Advice, ...]:
    """All advice about a folder that loads, in the order of its files."""
    active = [placed for placed in objects if placed.item.mode is not Mode.DISABLED]
    timeless = [
        *_nothing_passes(active),
        *_nothing_is_enforced(objects),
        *_keys_of_nothing(active),
        *_pointless_substitutes(active),
        *_same_places(active),
        *overlaps.problems(active),
        *callers.problems(objects),
    ]
    found = [*map(Advice, timeless), *_expired(active)]
    return tuple(sorted(found, key=lambda each: (each.problem.file, each.problem.line, each.problem.column)))


def _nothing_passes(active: Sequence[Placed]) -> Iterator[Problem]:
    """Whether what passes without a rule makes the rules that allow senseless, or those are missing."""
    allowing = [
        placed
        for placed in active
        if isinstance(placed.item.spec, AccessRule) and placed.item.spec.effect is Effect.ALLOW
    ]
    enforced = [placed for placed in allowing if placed.item.mode is Mode.ENFORCE]
    for placed in active:
        if not isinstance(placed.item.spec, Defaults):
            continue
        path = ("spec", "access")
        if placed.item.spec.access is Effect.DENY and not enforced:
            what = (
                "every AccessRule that allows is in shadow" if allowing else "no AccessRule allows anything"
            )
            yield placed.problem(path, f"no request passes: access is deny, and {what}")
        if placed.item.spec.access is Effect.ALLOW and enforced:
            others = f" and {len(enforced) - 1} more allow" if len(enforced) > 1 else " allows"
            rules = f"{enforced[0].where}{others}"
            message = f"access: allow lets everything pass that no rule denies, so {rules} nothing more"
            yield placed.problem(path, message)


def _nothing_is_enforced(objects: Sequence[Placed]) -> Iterator[Problem]:
    """Whether a folder only watches."""
    policies = [placed for placed in objects if isinstance(placed.item.spec, PolicySpec)]
    judging = [placed for placed in policies if not isinstance(placed.item.spec, Identity)]
    defaults = next(placed for placed in objects if isinstance(placed.item.spec, Defaults))
    watching = [placed for placed in judging if placed.item.mode is Mode.SHADOW]
    is_open = isinstance(defaults.item.spec, Defaults) and defaults.item.spec.access is Effect.ALLOW
    if is_open and watching and not any(placed.item.mode is Mode.ENFORCE for placed in policies):
        yield defaults.problem(
            ("spec", "access"), "nothing is enforced: every policy is in shadow or disabled"
        )


def _keys_of_nothing(active: Iterable[Placed]) -> Iterator[Problem]:
    """Parts of keys that make no difference between requests."""
    for placed in active:
        spec = placed.item.spec
        if not isinstance(spec, LimitSpec):
            continue
        texts = [part.text for part in spec.key]
        for index, part in enumerate(spec.key):
            path = ("spec", "key", index)
            if not part.reads:
                yield placed.problem(
                    path, "this is the same for every request; name a fact, such as identity.team"
                )
            elif part.text in texts[:index]:
                yield placed.problem(path, f"{part.text} is there twice and makes no other counters")
            elif part.text == "target.cluster":
                yield placed.problem(path, "target.cluster is always empty, as nothing routes")


def _pointless_substitutes(active: Iterable[Placed]) -> Iterator[Problem]:
    """Caps that only count requests for the very model that they would offer instead."""
    models = frozenset({Fact("request.model"), Fact("target.model")})
    for placed in active:
        spec = placed.item.spec
        if not isinstance(spec, UsageCap) or not spec.substitute:
            continue
        for need in spec.match.needs:
            if need.fact in models and not need.is_prefix and need.values == {spec.substitute.lower()}:
                message = "never denies: it counts only requests for the model that it would offer instead"
                yield placed.problem(("spec", "onExceed", "useModel"), f"{placed.item.ref} {message}")
                break


def _same_places(active: Iterable[Placed]) -> Iterator[Problem]:
    """Providers that are never recognised, because another one of the same place comes first."""
    first: dict[object, Placed] = {}
    for placed in sorted(active, key=lambda each: each.item.ref):
        spec = placed.item.spec
        if not isinstance(spec, Provider):
            continue
        for format_name in spec.formats:
            earlier = first.setdefault((frozenset(spec.hosts), spec.base_path, format_name), placed)
            if earlier is not placed:
                message = f"{earlier.where} speaks {format_name} at the same place and comes first"
                yield placed.problem(("spec", "formats", spec.formats.index(format_name)), message)


def _expired(active: Iterable[Placed]) -> Iterator[Advice]:
    for placed in active:
        spec = placed.item.spec
        if isinstance(spec, ApiKey) and spec.expires is not None and not spec.disabled:
            message = f"{placed.item.ref} has expired; whoever shows it is refused"
            yield Advice(placed.problem(("spec", "expires"), message), spec.expires)
