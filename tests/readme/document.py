"""README.md as text with generated blocks between `<!-- generated: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from tests.readme import live, recorded, samples
from tests.readme.markdown import ROOT

PATH = ROOT / "README.md"

_BLOCK = re.compile(r"(?P<start><!-- generated: (?P<name>\S+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """The text with every block filled anew; starts two stacks if a block needs them."""
    return fill(text, {**samples.blocks(), **live.blocks(), **recorded.blocks(text)})


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """The text with these blocks.

    Raises `ValueError` for a block of the text that nobody generates, and for one that it does not show.
    """
    names = [match["name"] for match in _BLOCK.finditer(text)]
    if sorted(names) != sorted(blocks):
        raise ValueError(f"the text shows {sorted(names)}, generated are {sorted(blocks)}")
    return _BLOCK.sub(lambda match: match["start"] + blocks[match["name"]] + "\n" + match["end"], text)


def difference(written: str, true: str) -> str:
    """What a run says and the file does not, as a unified diff; empty where they are the same."""
    lines = (written.splitlines(keepends=True), true.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, "README.md as it is", "README.md as a run says"))
