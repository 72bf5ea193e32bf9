"""How Cohere's APIs answer a denial.

Floor 1, pure. Source: recorded errors of the API; cohere-python raises by status and shows `message`.
"""

from __future__ import annotations

import json

from extproc.decision import Denial
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.base import Reply


def render_denial(denial: Denial) -> Reply:
    """The reply from which Cohere's SDKs raise the exception of `denial.status`."""
    body = {"id": denial.decision_id, "message": told(denial), **facts(denial)}
    return Reply(status=denial.status, headers=denial_headers(denial), body=json.dumps(body).encode())
