"""Token counts of texts that were counted before, so that a growing conversation costs what is new.

Floor 1. A text is known by a keyed digest alone: no text is kept, and without the key nobody can make
two texts that share a count, or find out from the table what was said.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

# From here on, looking a text up in vain and noting it cost less than a fifth of counting it.
CACHED_CHARS = 256
# An entry takes 170 bytes, so the whole table 6 MB: the messages of some thousand conversations.
_ENTRIES = 32_768
_DIGEST_BYTES = 16


class CountCache:
    """The counts of the texts used last, at most `entries`; safe in threads."""

    def __init__(self, key: bytes, *, entries: int = _ENTRIES) -> None:
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=key)
        self._entries = entries
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def digest(self, purpose: str, texts: Iterable[str]) -> bytes:
        """What these texts are known by; `purpose` keeps counts of different kinds apart."""
        found = self._hash.copy()
        for text in (purpose, *texts):
            data = text.encode("utf-8", "surrogatepass")
            # The length keeps the end of one text and the begin of the next apart.
            found.update(len(data).to_bytes(8, "big"))
            found.update(data)
        return found.digest()

    def find(self, digest: bytes) -> int | None:
        """The count, if it is still known."""
        with self._lock:
            tokens = self._counts.get(digest)
            if tokens is not None:
                self._counts.move_to_end(digest)
        return tokens

    def note(self, digest: bytes, tokens: int) -> None:
        """Remember a count; the one used least recently is forgotten for it."""
        with self._lock:
            self._counts[digest] = tokens
            if len(self._counts) > self._entries:
                self._counts.popitem(last=False)
