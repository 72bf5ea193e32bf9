"""One explanation as a page for a person at a terminal.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from extproc.questions.explained import Explanation
from extproc.questions.screen import Line, Screen, lines
from extproc.questions.sections import sections


def page(explanation: Explanation, screen: Screen) -> str:
    """The page as the screen has room for it."""
    return lines(_page(explanation), screen)


def _page(told: Explanation) -> Iterator[Line]:
    for section in sections(told):
        if section.title:
            yield Line("")
            yield Line(section.title, style="bold")
        yield from section.lines
