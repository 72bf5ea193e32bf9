"""Which counters changed since the ledger last asked, and the versions it tells them apart by.

Floor 3. What changes between two questions is one version: nobody saw the states between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from extproc.policy.counters import AnyCounter
from extproc.store.base import CounterState


class Changes:
    """Names of counters that changed; nothing is noted until somebody asks, or seeds.

    It never holds more names than there are counters, and `most_forgotten` of those that are not any
    more. Beyond that the longest forgotten are left out: what is written of them is then too much,
    never too little, and time gives it back.
    """

    def __init__(self, *, most_forgotten: int) -> None:
        self._version = 1
        self._changed: dict[str, None] | None = None
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._most_forgotten = most_forgotten

    def begin(self, counters: Mapping[str, AnyCounter]) -> None:
        """Note what changes from now on, and all that changed until now."""
        if self._changed is None:
            self._changed = dict.fromkeys(name for name, counter in counters.items() if counter.version)

    def note(self, name: str, counter: AnyCounter) -> None:
        """The counter is not what it was."""
        counter.version = self._version
        if self._changed is not None:
            self._changed[name] = None
            self._forgotten.pop(name, None)

    def note_forgotten(self, name: str, counter: AnyCounter) -> None:
        """The counter is as if nobody had used it, and gone."""
        if self._changed is None or not counter.version:
            return  # nobody was ever told of it
        self._changed.pop(name, None)
        self._forgotten[name] = None
        if len(self._forgotten) > self._most_forgotten:
            self._forgotten.popitem(last=False)

    def continue_from(self, seeded: CounterState) -> None:
        """The counter is what was written; versions from now on are newer."""
        self._version = max(self._version, seeded.version + 1)
        if self._changed is not None:
            self._changed.pop(seeded.counter, None)
        self._forgotten.pop(seeded.counter, None)

    def take(self, counters: Mapping[str, AnyCounter]) -> tuple[CounterState, ...]:
        """The states of what changed; those of a new version from now on."""
        self.begin(counters)
        assert self._changed is not None  # noqa: S101
        states = [
            CounterState(counter=name, version=counters[name].version, state=counters[name].dump())
            for name in self._changed
        ]
        states += [CounterState(counter=name, version=self._version, state="") for name in self._forgotten]
        self._changed, self._forgotten = {}, OrderedDict()
        self._version += 1
        return tuple(states)
