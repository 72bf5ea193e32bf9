"""What callers ask about themselves through the gateway, read from the request line.

Floor 2, pure. `/ai-policy/decisions/ID` and `/ai-policy/usage?...`; whoever is asked answers for the
caller's own identity alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from extproc.decision import Reason
from extproc.errors import RequestRefused
from extproc.model import Identity, RequestHead, nothing

PREFIX = "/ai-policy/"

_MOST_PARAMETERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """One question: about a decision, or about usage with these parameters."""

    decision_id: str = ""
    parameters: Mapping[str, str] = field(default_factory=nothing)


def is_one(head: RequestHead) -> bool:
    """Whether this is a question to the gateway, and no AI request."""
    return head.path_only.startswith(PREFIX)


def read(head: RequestHead) -> Inquiry:
    """The question. Raises `RequestRefused` where it is none that can be asked."""
    if head.method not in ("GET", "HEAD"):
        raise RequestRefused(
            status=405, code=Reason.UNCLASSIFIED, message=f"Questions under {PREFIX} are asked with GET."
        )
    what, _, name = head.path_only.removeprefix(PREFIX).partition("/")
    if what == "decisions" and name and "/" not in name:
        return Inquiry(decision_id=unquote(name))
    if what == "usage" and not name:
        return Inquiry(parameters=_parameters(head.query))
    raise RequestRefused(
        status=404,
        code=Reason.UNCLASSIFIED,
        message=f"Callers may ask for {PREFIX}decisions/ID and for {PREFIX}usage.",
    )


def check_caller(caller: Identity) -> None:
    """Raises `RequestRefused` for whom nobody vouched for: there is nothing of their own to tell."""
    if not (caller.authenticated and caller.id):
        raise RequestRefused(
            status=401,
            code=Reason.CREDENTIAL_MISSING,
            message=f"{PREFIX} answers callers about themselves, and this request does not say who calls.",
        )


def _parameters(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        pairs = []
    found = dict(pairs)
    if len(found) < len(pairs) or (query and not pairs):
        raise RequestRefused(
            status=400,
            code=Reason.BODY_MALFORMED,
            message="The query of this question has a parameter twice, or too many of them.",
        )
    return found
