"""What an image of the input costs in tokens: the vendors' tables, by model.

Sizes are those of the original in pixels. Where they are unknown, the family's maximum is taken: an
estimate that is too high is returned, one that is too low is not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from extproc.measure.families import claude_version, normalised
from extproc.model import PromptImage

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """OpenAI's older rule: fit into a box, then the short side, then count squares of 512 pixels."""

    base: int
    tile: int

    def tokens(self, size: Size | None, detail: str) -> int:
        """What an image costs; None is an unknown size."""
        if detail == "low":
            return self.base
        return self.base + self.tile * (self._tiles(size) if size else _MOST_TILES)

    @staticmethod
    def _tiles(size: Size) -> int:
        width, height = _fit(size, side_px=_BOX_PX)
        scale = min(1.0, _SHORT_SIDE_PX / min(width, height))
        return _squares((width * scale, height * scale), _TILE_PX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """The newer rule: fit the longest side and a budget, then count small squares."""

    side_px: int
    budget: int
    low_side_px: int
    patch_px: int = 32
    percent: int = 100  # tokens for a hundred patches

    def tokens(self, size: Size | None, detail: str) -> int:
        """What an image costs; None is an unknown size."""
        side = self.low_side_px if detail == "low" else self.side_px
        most = min(self.budget, math.ceil(side / self.patch_px) ** 2)
        patches = min(most, _squares(_fit(size, side_px=side), self.patch_px)) if size else most
        return math.ceil(patches * self.percent / 100)


Rule = Tiles | Patches

_BOX_PX, _SHORT_SIDE_PX, _TILE_PX = 2048, 768, 512
_MOST_TILES = 8  # 2048 x 768

_CLAUDE_TO_4_6 = Patches(side_px=1568, budget=1568, low_side_px=1568, patch_px=28)
_CLAUDE = Patches(side_px=2576, budget=4784, low_side_px=2576, patch_px=28)
_GEMINI = Patches(side_px=3072, budget=16, low_side_px=768, patch_px=768, percent=25_800)
_DEFAULT: Rule = Tiles(base=85, tile=170)

# The first match decides.
_RULES: tuple[tuple[re.Pattern[str], Rule], ...] = (
    (re.compile(r"gpt-4o-mini"), Tiles(base=2833, tile=5667)),
    (re.compile(r"gpt-4\.1-mini"), Patches(side_px=2048, budget=6144, low_side_px=512, percent=162)),
    (re.compile(r"gpt-4\.1-nano"), Patches(side_px=2048, budget=6144, low_side_px=512, percent=246)),
    (re.compile(r"gpt-5-mini"), Patches(side_px=2048, budget=1536, low_side_px=512, percent=162)),
    (re.compile(r"gpt-5-nano"), Patches(side_px=2048, budget=1536, low_side_px=512, percent=246)),
    (re.compile(r"o4-mini"), Patches(side_px=2048, budget=1536, low_side_px=512, percent=172)),
    (re.compile(r"gpt-5(\.1)?(?![\d.])"), Tiles(base=70, tile=140)),
    (
        re.compile(r"gpt-(5\.[5-9]|[6-9])"),
        Patches(side_px=6000, budget=10_000, low_side_px=2048, percent=120),
    ),
    (re.compile(r"gpt-5\."), Patches(side_px=2048, budget=6144, low_side_px=512, percent=120)),
    (re.compile(r"o[134](?![a-z0-9.])"), Tiles(base=75, tile=150)),
    (re.compile(r"gemini"), _GEMINI),
)


def image_tokens(image: PromptImage, *, model: str) -> int:
    """What one image costs `model`, at least 1."""
    rule = _rule(normalised(model))
    return max(1, rule.tokens(_size(image), image.detail))


def largest_image_tokens(*, model: str) -> int:
    """What no image exceeds for `model`, whatever its size."""
    return _rule(normalised(model)).tokens(None, "high")


def _rule(name: str) -> Rule:
    if "claude" in name:
        return _CLAUDE_TO_4_6 if claude_version(name) <= (4, 6) else _CLAUDE
    return next((rule for pattern, rule in _RULES if pattern.match(name)), _DEFAULT)


def _size(image: PromptImage) -> Size | None:
    if not image.width_px or not image.height_px or min(image.width_px, image.height_px) < 0:
        return None
    return image.width_px, image.height_px


def _fit(size: Size, *, side_px: int) -> tuple[float, float]:
    scale = min(1.0, side_px / max(size))
    # A sliver of an image still has one pixel.
    return max(1.0, size[0] * scale), max(1.0, size[1] * scale)


def _squares(size: tuple[float, float], edge_px: int) -> int:
    # Scaling leaves the last bits of a float behind; they must not open another square.
    width, height = (math.ceil(round(side / edge_px, 6)) for side in size)
    return max(1, width) * max(1, height)
