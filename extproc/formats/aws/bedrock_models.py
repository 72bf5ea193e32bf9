"""What a Bedrock path says: operation and model, and what the model's id tells about it.

Floor 1, pure. Source: Bedrock API reference, "InvokeModel", and its pattern for `modelId`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from extproc.formats.base import Call, RequestLine

# The alphabet of the reference's pattern; ids have below 200 characters.
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}")
_SEGMENTS = 3
_ARN = re.compile(r"arn:aws[^:]*:[^:]+:[^:]*:[^:]*:(?P<kind>[a-z-]+)/(?P<name>.+)")
# ARNs that end in the name of a model, as against an id of the account's own.
_NAMING = frozenset({"foundation-model", "inference-profile"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation below `/model/{id}/`; `stream` is None where there is none to tell of."""

    name: str
    stream: bool | None = None


def claim(line: RequestLine, api: str, operations: Mapping[str, Operation]) -> Call | None:
    """A POST to one of `operations` of a model; ARNs come as one segment with an encoded slash."""
    if line.method != "POST" or len(line.segments) != _SEGMENTS:
        return None
    root, model, name = line.segments
    operation = operations.get(name)
    if root != "model" or operation is None or not _MODEL_ID.fullmatch(model):
        return None
    return Call(api=api, operation=operation.name, model=model.lower(), stream=operation.stream)


def names(model: str) -> list[str]:
    """Every name of a model: its id, and the model's own name where the id is an ARN that ends in one."""
    arn = _ARN.fullmatch(model)
    return [model, arn["name"]] if arn and arn["kind"] in _NAMING else [model]


def is_prompt(model: str) -> bool:
    """Whether the id is that of a stored prompt, which brings messages and model of its own."""
    arn = _ARN.fullmatch(model)
    return arn is not None and arn["kind"] == "prompt"


def vendor_names(model: str) -> tuple[str, ...]:
    """What may be the vendor's own name of a model, such as `anthropic.claude-v2`, likeliest first.

    Inference profiles put where they may run before it (`us.`, `global.`); a custom model names what
    it was made from. Empty where only AWS knows the model.
    """
    arn = _ARN.fullmatch(model)
    if arn is not None and arn["kind"] not in _NAMING and arn["kind"] != "custom-model":
        return ()
    name = arn["name"] if arn else model
    return (name, name.partition(".")[2])
