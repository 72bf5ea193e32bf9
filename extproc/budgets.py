"""Counters for the people who own them: read one, forgive what was used, grant more for a while.

Floor 3, on the admin port. Every change is a record in the ledger and in the log; nothing here edits
a policy.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from extproc.decision import Charge, ChargeOutcome, Unit
from extproc.errors import StoreUnavailable
from extproc.ledger.base import Change, Ledger
from extproc.policy import money
from extproc.policy.limited import LimitSpec, probe
from extproc.policy.objects import PolicyObject
from extproc.policy.policyset import PolicySet
from extproc.store.base import Store

log = logging.getLogger(__name__)

_MOST_EXTRA: Final = 4 * 10**15
_LONGEST_BODY_BYTES: Final = 64 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """A question that makes no sense; the message says what would."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The counters behind the policies in force."""

    policies: Callable[[], PolicySet]
    store: Store
    ledger: Ledger | None
    clock_ns: Callable[[], int]
    new_id: Callable[[int], str]

    def routes(self) -> list[Route]:
        """What the admin port offers of them."""
        return [
            Route("/counters", self._answer(self._read)),
            Route("/counters/reset", self._answer(self._reset), methods=["POST"]),
            Route("/counters/override", self._answer(self._override), methods=["POST"]),
        ]

    def _answer(self, handler: Callable[[Request, int], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                return JSONResponse(await handler(request, self.clock_ns()))
            except Refused as refused:
                return JSONResponse({"error": str(refused)}, status_code=refused.status)
            except StoreUnavailable:
                return JSONResponse({"error": "the counter store does not answer"}, status_code=503)

        return answer

    async def _read(self, request: Request, at_ns: int) -> dict[str, Any]:
        wanted = {"policy": request.query_params.get("policy"), "key": request.query_params.getlist("key")}
        return await self._state(self._charge(wanted, at_ns), at_ns)

    async def _reset(self, request: Request, at_ns: int) -> dict[str, Any]:
        charge = self._charge(await _body(request, {"policy", "key"}), at_ns)
        details = {"used": str((await self._state(charge, at_ns))["used"])}
        with self._on_record("counter_reset", charge, at_ns, details):
            await self.store.reset(charge, at_ns // 1000)
        return await self._state(charge, at_ns)

    async def _override(self, request: Request, at_ns: int) -> dict[str, Any]:
        wanted = await _body(request, {"policy", "key", "extra", "until"})
        charge = self._charge(wanted, at_ns)
        extra = _extra(charge.unit, wanted.get("extra"))
        until_us = _until_us(wanted.get("until"), at_ns // 1000) if extra else 0
        action = "override_granted" if extra else "override_removed"
        details = {"extra": _shown(charge.unit, extra), "until": _moment(until_us)}
        with self._on_record(action, charge, at_ns, details):
            await self.store.override(charge, extra, until_us, at_ns // 1000)
        return await self._state(charge, at_ns)

    def _charge(self, wanted: Mapping[str, Any], at_ns: int) -> Charge:
        """The charge that takes nothing from the counter that is meant."""
        found = self._limit(wanted.get("policy"))
        key = wanted.get("key") or []
        if not isinstance(key, list) or not all(map(_is_text, key)):
            raise Refused(400, "key is the list of the key's values, as strings, in the policy's order")
        expressions = [expression.text for expression in found.spec.key]
        if len(key) != len(expressions):
            names = ", ".join(expressions) or "nothing"
            raise Refused(400, f"{found.ref} has one counter for each {names}: key needs {len(expressions)}")
        return probe(found, tuple(key), at_ns)

    def _limit(self, name: object) -> PolicyObject[LimitSpec]:
        limits = {str(item.ref): item for item in self.policies().limits}
        if not isinstance(name, str) or name not in limits:
            known = ", ".join(limits) or "there is none"
            raise Refused(404, f"policy names a limit of the folder in force: {known}")
        return limits[name]

    async def _state(self, charge: Charge, at_ns: int) -> dict[str, Any]:
        (outcome,) = await self.store.read((charge,), at_ns // 1000)
        if outcome.unavailable:
            raise StoreUnavailable("the counter cannot be read")
        return _described(outcome, at_ns)

    @contextmanager
    def _on_record(
        self, action: str, charge: Charge, at_ns: int, details: Mapping[str, str]
    ) -> Iterator[None]:
        """Put a change on record once it is made; also one that nobody answered, which may be made."""
        try:
            yield
        except StoreUnavailable:
            self._record(action, charge, at_ns, {**details, "outcome": "unknown"})
            raise
        self._record(action, charge, at_ns, details)

    def _record(self, action: str, charge: Charge, at_ns: int, details: Mapping[str, str]) -> None:
        change = Change(
            change_id=self.new_id(at_ns),
            at_ns=at_ns,
            action=action,
            subject=str(charge.policy),
            key=charge.key,
            details=details,
        )
        log.warning(
            "ai_policy.change",
            extra={
                "change_id": change.change_id,
                "action": action,
                "policy": change.subject,
                "key": list(change.key),
                **details,
            },
        )
        if self.ledger is not None:
            self.ledger.changed(change)


def _described(outcome: ChargeOutcome, at_ns: int) -> dict[str, Any]:
    """A counter as JSON: money in dollars as text, everything else in whole units."""
    charge = outcome.charge
    return {
        "policy": str(charge.policy),
        "key": list(charge.key),
        "unit": charge.unit.value,
        "limit": _amount(charge.unit, outcome.limit),
        "used": _amount(charge.unit, outcome.used),
        "remaining": _amount(charge.unit, outcome.remaining),
        "extra": _amount(charge.unit, outcome.limit - charge.window.size),
        # Whole seconds: a store's clock is some microseconds off ours, and no period ends in between.
        "reset_at": _moment(round(at_ns // 1000 + outcome.reset_us, -6)) if outcome.used else None,
    }


def _amount(unit: Unit, amount: int) -> int | str:
    return money.written(amount).replace("$", "") if unit is Unit.COST_USD else amount


def _shown(unit: Unit, amount: int) -> str:
    return str(_amount(unit, amount))


def _extra(unit: Unit, value: object) -> int:
    """What is granted on top, in the counter's unit: whole units, or dollars."""
    try:
        extra = money.nano_usd(money.decimal(value)) if unit is Unit.COST_USD else value
    except ValueError:
        extra = None
    if type(extra) is not int or not 0 <= extra <= _MOST_EXTRA:
        what = 'dollars, such as "12.50"' if unit is Unit.COST_USD else f"a whole number of {unit.value}"
        raise Refused(400, f"extra is {what}; 0 takes an override away")
    return extra


def _until_us(value: object, now_us: int) -> int:
    try:
        until = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        until = None
    if until is None or until.tzinfo is None or (until_us := _us(until - _EPOCH)) > _LAST_US:
        raise Refused(400, 'until is a time with its zone, such as "2026-12-01T00:00:00Z"')
    if until_us <= now_us:
        raise Refused(400, "until is over already")
    return until_us


def _moment(us: int) -> str:
    """A time as text; what lies beyond the last one there is, as that."""
    moment = _EPOCH + timedelta(microseconds=min(us, _LAST_US))
    return moment.isoformat().replace("+00:00", "Z") if us else ""


def _us(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


_LAST_US: Final = _us(datetime.max.replace(tzinfo=UTC) - _EPOCH)


def _is_text(value: object) -> bool:
    """Whether it is a string that has bytes: JSON may hold half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


async def read_body(request: Request) -> bytes:
    """What was sent, as far as anything sent here may be long. Raises `Refused`."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LONGEST_BODY_BYTES:
            raise Refused(413, f"the body is larger than {_LONGEST_BODY_BYTES} bytes")
    return data


async def _body(request: Request, fields: set[str]) -> dict[str, Any]:
    try:
        value = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value.keys() <= fields:
        raise Refused(400, f"the body is a JSON object with {', '.join(sorted(fields))}")
    return value
