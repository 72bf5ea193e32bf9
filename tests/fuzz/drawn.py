"""JSON out of bytes: bodies that are nearly right, so that a fuzzer gets past the first check."""

import copy
import re
from pathlib import Path
from typing import Any

FORMATS = Path(__file__).parent.parent.parent / "extproc/formats"
CANARY = "Zq7-my-secret-plan"

# Every word in the formats' sources: the keys and values they look for, of formats to come as well.
VOCABULARY: list[str] = sorted(
    {
        word
        for path in sorted(FORMATS.glob("*.py"))
        for word in re.findall(r'"([A-Za-z_@$][\w@$.:/-]{0,40})"', path.read_text())
    }
)
# Copies of copies grow fast.
_MAX_CHANGES = 12
_LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 5, 2**31, 10**300, 0.5, -1e300, "", "true", "5", " m", "M\u00fc\u2028"),
    *(CANARY, f" {CANARY}", f"{CANARY}\n", "x" * 300, "data:image/png;base64,iVBORw0KGgo=", "https://x/y"),
    *("\N{LATIN SMALL LETTER LONG S}", "\N{KELVIN SIGN}", "gpt-4o", '{"model":"x"}', [], {}, [[]], [{}]),
)


class Drawn:
    """Choices drawn from bytes; zero once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        """A number from 0, of as few bytes as can say it."""
        size = 1 if below <= 1 << 8 else 2
        drawn = int.from_bytes(self._data[self._at : self._at + size], "big")
        self._at += size
        return drawn % below

    def rest(self) -> bytes:
        """Everything that is left."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest

    def some(self) -> bytes:
        """A short stretch of the bytes themselves."""
        size = self.number(64)
        self._at += size
        return self._data[self._at - size : self._at]

    def key(self) -> str:
        """A word that some format knows, now and then spelled otherwise."""
        word = VOCABULARY[self.number(len(VOCABULARY))]
        variant = self.number(16)
        if variant == 0:
            return word.upper()
        return CANARY if variant == 1 else word

    def value(self, depth: int = 0) -> Any:
        """Any JSON value."""
        kind = self.number(12)
        if kind == 0:
            return self.key()
        if kind == 1:
            return self.some().decode(errors="replace")
        if kind == 2 and depth < 4:
            return [self.value(depth + 1) for _ in range(self.number(4))]
        if kind == 3 and depth < 4:
            return {self.key(): self.value(depth + 1) for _ in range(self.number(4))}
        return copy.deepcopy(_LEAVES[self.number(len(_LEAVES))])

    def changed(self, seed: Any) -> Any:
        """The seed with a few of its values replaced, removed, repeated or renamed."""
        whole = copy.deepcopy(seed)
        for _ in range(_MAX_CHANGES):
            if self.is_over:
                break
            holders = list(_holders(whole))
            if not holders:
                return self.value()
            self._change(holders[self.number(len(holders))])
        return whole

    def _change(self, holder: Any) -> None:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        what = self.number(6)
        if not keys or what == 0:
            self._add(holder)
            return
        key = keys[self.number(len(keys))]
        if what == 1:
            del holder[key]
        elif what == 2 and isinstance(holder, dict):
            holder[self.key()] = copy.deepcopy(holder[key])
        elif what == 3 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = self.value()

    def _add(self, holder: Any) -> None:
        if isinstance(holder, dict):
            holder[self.key()] = self.value()
        else:
            holder.append(self.value())


def _holders(value: Any) -> list[Any]:
    found: list[Any] = []
    todo: list[Any] = [value]
    while todo and len(found) < 200:
        item = todo.pop()
        if isinstance(item, dict | list):
            found.append(item)
            todo += item.values() if isinstance(item, dict) else item
    return found
