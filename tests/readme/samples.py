"""The blocks that need no running process: read off the code, or computed by it."""

from __future__ import annotations

from extproc.session.transitions import diagram
from tests.readme import accounting, surface
from tests.readme.markdown import fenced


def blocks() -> dict[str, str]:
    """Each block's name and text."""
    return {
        "states": fenced(diagram(), "mermaid"),
        "policies": surface.policies(),
        "kinds": surface.kinds(),
        "facts": surface.facts(),
        "check": surface.checked_folders(),
        "settings": surface.settings(),
        "addresses": surface.addresses(),
        "settlement": accounting.settlements(),
        "bucket": accounting.bucket(),
    }
