"""Random identifiers in the shapes providers give them."""

from __future__ import annotations

import secrets
import string

_BASE62 = string.ascii_letters + string.digits


def base62(length: int) -> str:
    """Letters and digits."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def hexadecimal(length: int) -> str:
    """Lower-case hexadecimal digits; `length` is even."""
    return secrets.token_hex(length // 2)
