"""A page as a person sees it: its text, its links, what a form holds, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "rect"})
SILENT = frozenset({"title", "datalist"})


@dataclass
class Seen(HTMLParser):
    """What is on one page."""

    html: str
    words: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)  # what is read -> where it leads
    filled: dict[str, str] = field(default_factory=dict)  # name -> value of what a form would send
    bars: list[str] = field(default_factory=list)
    _within: list[str] = field(default_factory=list)
    _link: str = ""
    _select: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    @property
    def text(self) -> str:
        """Everything there is to read, on one line."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: text or "" for name, text in attrs}
        self.tags.add(tag)
        self.attributes |= values.keys()
        if tag not in VOID:
            self._within.append(tag)
        if tag == "a":
            self._link = values["href"]
        elif tag == "input" and values["name"] != "id":
            self.filled[values["name"]] = values.get("value", "")
        elif tag == "select":
            self._select = values["name"]
        elif tag == "option" and "selected" in values:
            self.filled[self._select] = values["value"]
        elif tag == "rect" and values["class"] != "of":
            self.bars.append(values["width"])

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass
        if tag == "a":
            self._link = ""

    def handle_data(self, data: str) -> None:
        if SILENT.isdisjoint(self._within):
            self.words.append(data)
            if self._link:
                self.links.setdefault(data, self._link)
