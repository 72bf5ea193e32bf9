"""What the parts of messages add up to: text, images, and the kinds of input among them.

Floor 1, pure. Formats walk their own part types and tell a `Content` what they found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.formats.images import Size
from extproc.model import Prompt, PromptImage, PromptMedia, PromptMessage


@dataclass(slots=True)
class Content:
    """Gathers one request; `end_message` closes what was gathered since the last one."""

    messages: list[PromptMessage] = field(default_factory=list)
    images: list[PromptImage] = field(default_factory=list)
    media: list[PromptMedia] = field(default_factory=list)
    tokens: int = 0
    modalities: set[str] = field(default_factory=set)
    _texts: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Text the model reads."""
        if text:
            self.modalities.add("text")
            self._texts.append(text)

    def image(self, size: Size | None, detail: str = "auto") -> None:
        """An image, with its size in pixels where the body shows it."""
        self.modalities.add("image")
        width, height = size or (None, None)
        self.images.append(PromptImage(width_px=width, height_px=height, detail=detail))

    def other(self, modality: str, size_bytes: int | None = None) -> None:
        """Input whose tokens only the provider can count; its size where the body holds it."""
        self.modalities.add(modality)
        self.media.append(PromptMedia(modality=modality, size_bytes=size_bytes))

    def ids(self, count: int) -> None:
        """Text that came as token ids."""
        self.modalities.add("text")
        self.tokens += count

    def end_message(self, role: str, name: str | None = None) -> None:
        """All gathered text belongs to one message."""
        self.messages.append(PromptMessage(role=role, text="\n".join(self._texts), name=name))
        self._texts.clear()

    def prompt(self, tools: tuple[str, ...] = ()) -> Prompt:
        """What the tokenizer needs of the whole request."""
        return Prompt(
            messages=tuple(self.messages),
            tools=tools,
            images=tuple(self.images),
            media=tuple(self.media),
            tokens=self.tokens,
        )
