"""Templates to answers, with the headers that keep a page harmless.

Floor 3. Callers choose what models are called, and policy authors what policies say: every value is escaped,
and none does anything on a page but stand there.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape
from starlette.responses import Response

from extproc.console import bars, links
from extproc.questions import cells, figures, said, screen

_FOLDER: Final = Path(__file__).parent
# No script, no frame, nothing from elsewhere; forms lead back here.
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": (
            "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        ),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)


def html(template: str, status: int = HTTPStatus.OK, /, **values: Any) -> Response:
    """The page of this template."""
    content = _TEMPLATES.get_template(f"{template}.html.j2").render(values)
    return Response(content, status, HEADERS, media_type="text/html")


def style() -> Response:
    """The only thing that a page loads."""
    return Response(_STYLE, headers=HEADERS, media_type="text/css")


def _shown(value: Any) -> Any:
    """A text with what would not just be printed written out; markup of our own as it is."""
    return screen.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    autoescape=True,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {
    "cells": cells,
    "figures": figures,
    "links": links,
    "said": said.said,
    "share": bars.share,
    "compared": bars.compared,
    # What goes back where it came from is not written out.
    "verbatim": escape,
}
_STYLE: Final = (_FOLDER / "console.css").read_text()
