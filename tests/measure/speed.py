"""How fast prompts are counted: `python -m tests.measure.speed` prints a Markdown table.

Times depend on the machine, so each is beside plain tiktoken's time for the same text in the same run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import tiktoken

from extproc.formats.classify import claim
from extproc.measure.counts import CountCache
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from extproc.model import Prompt, PromptMessage, RequestHead
from extproc.settings import INLINE_BODY_BYTES
from extproc.understand import understand

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_TURNS = (1, 10, 25, 50)
_TURN_CHARS = 1_500  # a question and its answer
_MODEL = "gpt-4o"
_REPEATS = 9


def main() -> None:
    """Measure and print."""
    encodings = load(default_directory(os.environ))
    text = _text(max(_SIZES))
    for table in (_by_size(encodings, text), _by_turn(encodings, text), _inline(encodings, text)):
        sys.stdout.write("\n".join(table) + "\n\n")


def _by_size(encodings: dict[str, tiktoken.Encoding], text: str) -> Iterator[str]:
    """A prompt of one text, for the first time and again, against the bare encoder."""
    yield "| text | tiktoken alone | counted first | counted again | first / alone | again / alone |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for size in _SIZES:
        prompt = _prompt(text[:size])
        alone = _seconds(partial(encodings["o200k_base"].encode_ordinary, text[:size]))
        first = min(_new(encodings, prompt) for _ in range(_REPEATS))
        again = min(_new(encodings, prompt, known=prompt) for _ in range(_REPEATS))
        ratios = f"{first / alone:.2f} | {again / alone:.3f}"
        yield f"| {size / 1000:,.0f} kB | {_shown(alone)} | {_shown(first)} | {_shown(again)} | {ratios} |"


def _by_turn(encodings: dict[str, tiktoken.Encoding], text: str) -> Iterator[str]:
    """The n-th request of a conversation that grows by one turn each time."""
    yield "| turn | prompt | without the cache | with it |"
    yield "| ---: | ---: | ---: | ---: |"
    turns = [text[start : start + _TURN_CHARS] for start in range(0, 50 * _TURN_CHARS, _TURN_CHARS)]
    for turn in _TURNS:
        prompt = _prompt(*turns[:turn])
        plain = _seconds(partial(_estimate, Tokenizer(encodings), prompt))
        before = _prompt(*turns[: turn - 1])
        cached = min(_new(encodings, prompt, known=before) for _ in range(_REPEATS))
        size = turn * _TURN_CHARS / 1000
        yield f"| {turn} | {size:,.1f} kB | {_shown(plain)} | {_shown(cached)} |"


def _new(encodings: dict[str, tiktoken.Encoding], prompt: Prompt, known: Prompt | None = None) -> float:
    """Seconds for a prompt with an empty cache, or with one that has seen `known`."""
    tokenizer = Tokenizer(encodings, CountCache(b"speed"))
    if known is not None:
        _estimate(tokenizer, known)
    started = time.perf_counter()
    _estimate(tokenizer, prompt)
    return time.perf_counter() - started


def _inline(encodings: dict[str, tiktoken.Encoding], text: str) -> Iterator[str]:
    """The largest bodies that are understood on the event loop, the slow kinds too."""
    yield f"| body of {INLINE_BODY_BYTES // 1024} KiB | decoded, parsed, counted |"
    yield "| --- | ---: |"
    head = RequestHead(method="POST", host="gateway", path="/v1/chat/completions")
    call = claim(head)
    assert call is not None
    for name, body in bodies(text, INLINE_BODY_BYTES).items():

        def work(body: bytes = body) -> None:
            tokenizer = Tokenizer(encodings, CountCache(b"speed"))
            found = understand(head, call, body, max_body_bytes=INLINE_BODY_BYTES, tokenizer=tokenizer)
            assert found.refused is None, found.refused

        yield f"| {name} | {_shown(_seconds(work))} |"


def bodies(text: str, size: int) -> dict[str, bytes]:
    """Chat bodies of just under `size` bytes: an ordinary one, and those that take longest."""
    room = size - 80

    def chat(content: str, model: str = _MODEL) -> bytes:
        return _body({"model": model, "messages": [{"role": "user", "content": content}]})

    def repeated(key: str, item: object) -> bytes:
        one = len(_body({"": item})) - 4
        message = {"role": "user", "content": "a"}
        body = {"model": _MODEL, "messages": [message], key: [item] * (room // one)}
        return _body(body)

    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    return {
        "prose": chat(text[: room - (len(chat(text[:room])) - size)]),
        "digits and dots, cl100k": chat("0." * (room // 2), "gpt-4"),
        "one blank after another": chat(" " * room),
        "messages of one letter": repeated("messages", {"role": "user", "content": "a"}),
        "tools": repeated("tools", {"type": "function", "function": function}),
    }


def _text(size: int) -> str:
    """Prose and code: the repository's own."""
    root = Path(__file__).parents[2]
    paths = [root / "README.md", *sorted((root / "extproc").rglob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    text = text.encode("ascii", "ignore").decode()
    return (text * (size // len(text) + 1))[:size]


def _prompt(*texts: str) -> Prompt:
    return Prompt(messages=tuple(PromptMessage(role="user", text=text) for text in texts))


def _estimate(tokenizer: Tokenizer, prompt: Prompt) -> None:
    tokenizer.estimate(prompt, provider="openai", model=_MODEL, declared_max_output=None)


def _body(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _seconds(work: Callable[[], object]) -> float:
    """The best of several: everything that makes it slower is something else."""
    found = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"


if __name__ == "__main__":
    main()
