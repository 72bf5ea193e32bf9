"""The known word that somebody probably meant. Floor 1, pure.

Only known words are ever named: what was written instead may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

# Longer than any word that is known here; comparing takes time by the square of the length.
_LONGEST: Final = 128
_SHORTEST_BEGINNING: Final = 3


def nearest(word: object, known: Iterable[str]) -> str:
    """The known word that looks most like `word`; empty if none looks much like it."""
    if not isinstance(word, str) or not 0 < len(word) <= _LONGEST:
        return ""
    by_letters = {_letters(each): each for each in known}
    beginnings = [each for each in by_letters if each.startswith(_letters(word))]
    if len(beginnings) == 1 and len(word) >= _SHORTEST_BEGINNING:
        return by_letters[beginnings[0]]
    found = difflib.get_close_matches(_letters(word), by_letters, n=1, cutoff=0.7)
    return by_letters[found[0]] if found else ""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """What to add to a sentence about an unknown word; it begins with a semicolon, or is empty."""
    meant = nearest(word, known)
    return f"; did you mean `{meant}`?" if meant else ""


def _letters(word: str) -> str:
    """The word without its case and separators, in which input_tokens and inputTokens differ."""
    return "".join(character for character in word.lower() if character.isalnum()) or word
