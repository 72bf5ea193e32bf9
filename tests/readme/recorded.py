"""The blocks about recorded traffic; where the recordings are not, what the file says stays as it is."""

from __future__ import annotations

import re

from tests.corpus import exchanges, report

_WRITERS = {
    "recorded-requests": report.classification,
    "recorded-usage": report.usage,
    "recorded-counts": report.counting,
}


def blocks(text: str) -> dict[str, str]:
    """Every block of this module, from the recordings if they are here, else from `text`."""
    if exchanges.IS_HERE:
        return {name: write() for name, write in _WRITERS.items()}
    kept = {
        name: re.search(rf"<!-- generated: {name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
        for name in _WRITERS
    }
    return {name: found[1] for name, found in kept.items() if found}
