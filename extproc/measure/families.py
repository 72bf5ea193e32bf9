"""Which family a model belongs to, and how that family's counts follow from a tiktoken count.

OpenAI's families count by formula. The others have no public tokenizer, or one we do not carry: their
figures are slopes and intercepts fitted to recorded answers, so their counts are never exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache


class ToolForm(Enum):
    """How a family shows tool definitions to its model."""

    TYPESCRIPT = "typescript"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The constants of one family; all in tokens but the slope."""

    encoding: str = "o200k_base"
    slope_percent: int = 100  # this family's tokens for a hundred of the encoding's
    per_message: int = 3  # framing, without the role
    per_prompt: int = 3  # what primes the answer
    frames_system: bool = True  # False: the system message's text alone counts
    per_tool_result: int = 0  # a call's frame beyond its text
    tool_form: ToolForm = ToolForm.JSON
    tools_percent: int = 100  # of what the tools' text has, before the slope
    per_tools: int = 0  # once, where there are tools
    is_exact: bool = False  # for plain text


UNKNOWN = Family(tool_form=ToolForm.TYPESCRIPT, per_tool_result=5, per_tools=9)
_OPENAI = replace(UNKNOWN, is_exact=True)
_CLAUDE = Family(slope_percent=142, per_message=2, per_prompt=6, frames_system=False, per_tools=460)
_CLAUDE_TO_4_6 = Family(slope_percent=115, per_message=2, per_prompt=6, frames_system=False, per_tools=500)
_CLAUDE_TO_4_4 = Family(slope_percent=115, per_message=2, per_prompt=6, frames_system=False, per_tools=320)
# Anthropic's page on tool use says how long its own instructions are: 159 for the first Sonnet, 264 for
# the Haikus of its time.
_CLAUDE_3_SONNET = replace(_CLAUDE_TO_4_4, per_tools=165)
_CLAUDE_3_HAIKU = replace(_CLAUDE_TO_4_4, per_tools=270)
# SentencePiece vocabularies of 32,000: a fifth more tokens of English, and a short frame.
_SMALL_VOCABULARY = Family(slope_percent=120, per_message=0)
# A header, the role, a blank line and an end for each message. Llama 3's vocabulary grew from cl100k's.
_HEADERS = Family(per_message=4, per_prompt=5)
_LLAMA_3 = replace(_HEADERS, encoding="cl100k_base")
_CHATML = Family(slope_percent=103, per_message=4)

# Clouds put a region and a vendor before the model's own name: us.anthropic.claude-...
_VENDOR = re.compile(
    r"^(?:[a-z]{2,6}\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen)\."
)
# Ends a version: nothing that continues the name may follow.
_END = r"(?![a-z0-9.])"
# Answers of these models count more, or less, than the text of the request.
_ODD = re.compile(r"o1-mini|search|audio|realtime|transcribe|tts|image|deep-research|vision|computer-use")

# The first match decides. A model of OpenAI that is not listed is taken for a new one.
_FAMILIES: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"gpt-oss"), replace(UNKNOWN, per_prompt=80)),
    (re.compile(rf"gpt-5(\.\d+)?{_END}"), replace(_OPENAI, per_prompt=2, per_tools=89)),
    (re.compile(rf"o[134]{_END}"), replace(_OPENAI, per_prompt=2)),
    (re.compile(rf"(gpt-4o|chatgpt-4o|gpt-4\.[15]){_END}"), _OPENAI),
    (
        re.compile(rf"(gpt-4|gpt-3\.5|gpt-35|text-embedding-(ada-002|3)|(davinci|babbage)-002){_END}"),
        replace(_OPENAI, encoding="cl100k_base"),
    ),
    (re.compile(r"gemini"), Family(slope_percent=104, per_message=0, per_prompt=0, tools_percent=70)),
    (re.compile(r"gemma"), replace(_HEADERS, slope_percent=104)),
    (re.compile(r"(mistral-(tiny|embed|7b)|(open-)?mixtral|open-mistral-7b)"), _SMALL_VOCABULARY),
    (
        re.compile(r"(open-)?(mistral|ministral|codestral|magistral|devstral|pixtral|voxtral)"),
        Family(slope_percent=107, per_message=0),
    ),
    (re.compile(r"(meta-)?(code-?llama|llama-?2)"), _SMALL_VOCABULARY),
    (re.compile(r"(meta-)?llama-?3(?![.-]\d(?!\d*b))"), _LLAMA_3),
    # A header of its own says what day it is.
    (re.compile(r"(meta-)?llama"), replace(_LLAMA_3, per_prompt=30)),
    (re.compile(r"deepseek"), Family(slope_percent=103, per_message=0)),
    (re.compile(r"qwen|qwq|glm"), _CHATML),
    # Two tokens between turns, none before the first.
    (
        re.compile(r"nova"),
        Family(slope_percent=103, per_message=1, per_prompt=-2, frames_system=False, per_tools=350),
    ),
    (re.compile(r"titan|j2-|jamba"), Family(per_message=0)),
    # Writer's have a prompt of their own.
    (re.compile(r"palmyra"), replace(UNKNOWN, per_prompt=28, per_tools=116)),
    # Cohere bills the caller's words without their frames.
    (
        re.compile(r"command|c4ai|aya|embed-|rerank-(english|multilingual|v)"),
        Family(slope_percent=105, per_message=0, per_prompt=0, tools_percent=45),
    ),
    (re.compile(r"voyage|rerank-"), Family(slope_percent=85)),
)

# The last version of each; what is newer has the newest constants.
_CLAUDES = (((4, 4), _CLAUDE_TO_4_4), ((4, 6), _CLAUDE_TO_4_6))
_CLAUDE_3 = (
    (re.compile(r"claude-3-sonnet"), _CLAUDE_3_SONNET),
    (re.compile(r"claude-3(-5)?-haiku"), _CLAUDE_3_HAIKU),
)
_CLAUDE_VERSION = re.compile(r"(?<!\d)(\d{1,2})(?:[-.](\d{1,2})(?!\d))?(?!\d)")
_UNVERSIONED = (99, 0)  # a name without a version is taken for the newest


# Clients choose model names, so what is remembered of them is bounded.
REMEMBERED_MODELS = 1024


@lru_cache(REMEMBERED_MODELS)
def normalised(model: str) -> str:
    """The model's own name: lower case, without `provider/`, cloud vendor and `ft:`."""
    name = model.lower().strip().rpartition("/")[2]
    return _VENDOR.sub("", name).removeprefix("ft:")


@lru_cache(REMEMBERED_MODELS)
def family(provider: str, model: str) -> Family:
    """The constants that count for `model`; unknown models count like OpenAI's newest, never exactly."""
    name = normalised(model)
    if "claude" in name or (provider == "anthropic" and not name):
        old = next((constants for pattern, constants in _CLAUDE_3 if pattern.match(name)), None)
        version = claude_version(name)
        return old or next((constants for last, constants in _CLAUDES if version <= last), _CLAUDE)
    return next((constants for pattern, constants in _FAMILIES if pattern.match(name)), UNKNOWN)


def claude_version(name: str) -> tuple[int, int]:
    """Major and minor of a normalised Claude name, dates ignored."""
    found = _CLAUDE_VERSION.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else _UNVERSIONED


def is_odd(name: str) -> bool:
    """Whether a normalised name says that the provider adds to, or takes from, the text."""
    return _ODD.search(name) is not None
