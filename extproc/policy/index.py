"""Which policies may match a request: the others are never evaluated.

Floor 1, pure. Each policy is found by the need of its match that the fewest others share; one without
a need is always there. That nothing is lost is `needs`' promise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy.needs import MAPS, TEXTS, Fact, Need

T = TypeVar("T")

_Texts = Iterable[str | None]
_Place = tuple[Fact, bool]  # a fact, and whether its beginning is looked up


@dataclass(frozen=True, slots=True)
class _Table:
    read: Callable[[facts_pb2.Facts], _Texts]
    positions: Mapping[str | None, tuple[int, ...]]
    lengths: tuple[int, ...]  # of the beginnings that are looked up; none where the whole text is

    def find(self, facts: facts_pb2.Facts) -> Iterator[tuple[int, ...]]:
        for text in self.read(facts):
            if not self.lengths or text is None:
                yield self.positions.get(text, ())
            else:
                # A text shorter than a length is looked up again as it is; positions are a set.
                yield from (self.positions.get(text[:length], ()) for length in self.lengths)


class Index(Generic[T]):
    """Items with the needs of their matches, in an order that every answer keeps."""

    def __init__(self, items: Iterable[tuple[T, tuple[Need, ...]]]) -> None:
        listed = tuple(items)
        self.items: tuple[T, ...] = tuple(item for item, _ in listed)
        self._always: list[int] = []
        self._tables = self._tabulate([needs for _, needs in listed])

    def __len__(self) -> int:
        return len(self.items)

    def candidates(self, facts: facts_pb2.Facts) -> tuple[T, ...]:
        """The items whose match may be true or fail; every other one's is false."""
        if not self._tables:
            return self.items
        found = set(self._always)
        for table in self._tables:
            for positions in table.find(facts):
                found.update(positions)
        return tuple(self.items[position] for position in sorted(found))

    def _tabulate(self, needed: list[tuple[Need, ...]]) -> tuple[_Table, ...]:
        shared = Counter((_place(need), value) for needs in needed for need in needs for value in need.values)
        used = Counter(_place(need) for needs in needed for need in needs)
        places: dict[_Place, dict[str | None, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, needs in enumerate(needed):
            if not needs:
                self._always.append(position)
                continue
            rarest = min(needs, key=lambda need: _rank(need, shared, used))
            at = places[_place(rarest)]
            for value in rarest.values:
                at[value].append(position)
        return tuple(_table(place, at) for place, at in places.items())


def _place(need: Need) -> _Place:
    return need.fact, need.is_prefix


def _rank(
    need: Need, shared: Mapping[tuple[_Place, str | None], int], used: Mapping[_Place, int]
) -> tuple[float, bool, int]:
    """Less is better: how many items share a value on average; among equals, few tables are read."""
    place = _place(need)
    mean = sum(shared[place, value] for value in need.values) / max(1, len(need.values))
    return mean, not need.fact.is_sure, -used[place]


def _table(place: _Place, at: Mapping[str | None, list[int]]) -> _Table:
    fact, is_prefix = place
    lengths = sorted({len(text) for text in at if text is not None}) if is_prefix else ()
    return _Table(_reader(fact), {text: tuple(found) for text, found in at.items()}, tuple(lengths))


def _reader(fact: Fact) -> Callable[[facts_pb2.Facts], _Texts]:
    get = attrgetter(fact.path)
    if fact.path in TEXTS:
        return lambda facts: (get(facts),)
    if fact.is_entry and fact.path in MAPS:
        # `get`, because reading a missing entry of a protobuf map by its key makes it.
        return lambda facts: (get(facts).get(fact.key, fact.default),)
    elements: Callable[[facts_pb2.Facts], _Texts] = get
    return elements
