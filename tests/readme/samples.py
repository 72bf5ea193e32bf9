"""The blocks that need no running process: read off the code, or computed by it."""

from __future__ import annotations

from extproc.session.transitions import diagram
from tests.readme import accounting, calls, surface
from tests.readme.markdown import fenced


def blocks() -> dict[str, str]:
    """Each block's name and text."""
    return {
        "states": fenced(_merged(diagram()), "mermaid"),
        "policies": surface.policies(),
        "kinds": surface.kinds(),
        "facts": surface.facts(),
        "check": surface.checked_folders(),
        "policy-test": surface.policy_tests(),
        "policy-test-run": surface.tested(),
        "settings": surface.settings(),
        "addresses": surface.addresses(),
        "calls": calls.calls(),
        "providers": calls.providers(),
        "settlement": accounting.settlements(),
        "bucket": accounting.bucket(),
    }


def _merged(drawing: str) -> str:
    """The diagram with one arrow between two states, whatever leads along it."""
    arrows: dict[str, str] = {}
    for line in drawing.splitlines():
        arrow, _, event = line.partition(": ")
        arrows[arrow] = f"{arrows[arrow]}, {event}" if arrow in arrows else line
    return "\n".join(arrows.values())
