"""Dollars as policy files and messages write them; inside they are whole nano-dollars.

Floor 1, pure.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

from extproc.policy.objects import rejected, whole

NANO_USD: Final = 1_000_000_000
# Fifteen digits are what a number without quotes keeps of them.
_AMOUNT: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?")


# How JSON Schema says it.
AMOUNT_SCHEMA: Final = {"type": ["string", "number"], "pattern": whole(_AMOUNT), "examples": ["2.50"]}


def decimal(value: Any) -> Decimal:
    """A number of a policy file, in quotes or not, exactly as it is written. Raises what validators raise."""
    text = format(Decimal(repr(value)), "f") if type(value) in (int, float) else value
    if not isinstance(text, str) or not _AMOUNT.fullmatch(text):
        raise rejected(
            'an amount is a decimal number that is not negative, such as "2.50", with at most nine decimals'
        )
    return Decimal(text)


def nano_usd(dollars: Decimal) -> int:
    """The same in nano-dollars; `dollars` has at most nine decimals."""
    return int(dollars * NANO_USD)


def written(nano_usd: int) -> str:
    """Dollars with at least two decimals and as many as there are: $12.50, $0.000015."""
    whole, rest = divmod(abs(nano_usd), NANO_USD)
    decimals = f"{rest:09}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano_usd < 0 else ''}${whole}.{decimals}"
