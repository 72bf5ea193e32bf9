"""pydantic's errors in the words of policy files: what would be accepted, and never what was written.

Floor 1, pure. What stands in a field may be a secret in the wrong place, so no sentence quotes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from extproc.policy.documents import Path
from extproc.policy.objects import API_VERSION
from extproc.policy.suggest import did_you_mean, nearest

# The type of the errors that validators of this package raise; their message is the sentence.
OWN: Final = "policy"
_OLD_BOOLEANS: Final = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


def name(where: Path) -> str:
    """What a person calls the place: the field, or the entry of its list."""
    entries = ""
    for step in reversed(where):
        if isinstance(step, str):
            return step + entries
        entries = f"[{step}]{entries}"
    return "this document"


def sentence(model: type[BaseModel], where: Path, error: Any) -> str:
    """One error of validating `model`, about the place `where`; `error` is what pydantic says."""
    path = tuple(error["loc"])
    if where == ("apiVersion",) and error["type"] != "missing":
        return f"apiVersion must be {API_VERSION}"
    if where == ("metadata", "name") and error["type"] == "string_pattern_mismatch":
        return (
            "a name is up to 63 lower-case letters, digits and hyphens, beginning and ending without a hyphen"
        )
    if error["type"] == OWN:
        return str(error["msg"])
    if error["type"] == "extra_forbidden":
        return _unknown(model, path)
    if error["type"] == "missing":
        return _missing(model, path)
    say = _SENTENCES.get(error["type"])
    return f"{name(where)} {say(error) if say else 'is not what is accepted here' + _purpose(model, path)}"


def _unknown(model: type[BaseModel], path: Path) -> str:
    block = _block_at(model, path[:-1])
    fields = _fields(block)
    message = f"there is no field {path[-1]!r} here; the fields are {', '.join(fields)}"
    meant = nearest(path[-1], fields)
    if meant:
        return f"{message}; did you mean `{meant}`?"
    elsewhere = [each for each in _places(model) if each[-1] == path[-1]]
    return f"{message}; it is a field of {'.'.join(elsewhere[0][:-1]) or 'spec'}" if elsewhere else message


def _missing(model: type[BaseModel], path: Path) -> str:
    return f"the field {path[-1]!r} is missing{_purpose(model, path)}"


def _purpose(model: type[BaseModel], path: Path) -> str:
    """What a field is for, behind a colon."""
    block = _block_at(model, path[:-1])
    field = _fields(block).get(str(path[-1])) if path else None
    if field is None or not field.description:
        return ""
    first, rest = field.description[0], field.description[1:].rstrip(".")
    return f": {first.lower() if rest[:1].islower() else first}{rest}"


# --- one sentence for each type of error that pydantic has


def _choice(error: Any) -> str:
    choices = error["ctx"]["expected"].replace("'", "")
    known = choices.replace(" or ", ", ").split(", ")
    return f"must be {choices}{did_you_mean(error['input'], known)}"


def _text(error: Any) -> str:
    is_scalar = isinstance(error["input"], bool | int | float)
    return "must be text; put it in quotes" if is_scalar else "must be text"


def _boolean(error: Any) -> str:
    given = error["input"]
    is_word = isinstance(given, str) and given.lower() in _OLD_BOOLEANS
    return f"must be true or false{', not in quotes and in no other words' if is_word else ''}"


def _list(error: Any) -> str:
    return f"must be a list{', also of one: put it in brackets' if isinstance(error['input'], str) else ''}"


def _entries(error: Any) -> str:
    least = error["ctx"]["min_length"]
    return f"must have at least {least} {'entry' if least == 1 else 'entries'}"


_WHOLE: Final = "must be a whole number, without quotes"
_MAPPING: Final = "must be a mapping of fields"

_SENTENCES: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "enum": _choice,
        "literal_error": _choice,
        "string_type": _text,
        "bool_type": _boolean,
        "tuple_type": _list,
        "list_type": _list,
        "too_short": _entries,
        "int_type": lambda _: _WHOLE,
        "int_from_float": lambda _: _WHOLE,
        "int_parsing_size": lambda _: "must be a smaller number",
        "dict_type": lambda _: _MAPPING,
        "mapping_type": lambda _: _MAPPING,
        "model_type": lambda _: _MAPPING,
        "greater_than_equal": lambda error: f"must be at least {error['ctx']['ge']}",
        "less_than_equal": lambda error: f"must be at most {error['ctx']['le']}",
        "string_too_short": lambda _: "must not be empty",
        "string_too_long": lambda error: f"must have at most {error['ctx']['max_length']} characters",
        "json_invalid": lambda error: (
            "is nested too deeply"
            if "recursion" in error["ctx"]["error"]
            else "holds a character that is none, such as half of a surrogate pair"
        ),
    }
)


# --- what a model accepts


def _fields(block: type[BaseModel] | None) -> Mapping[str, FieldInfo]:
    """The fields of a block as files write them."""
    if block is None:
        return {}
    return {field.alias or attribute: field for attribute, field in block.model_fields.items()}


def _block_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The block that `path` leads to."""
    block: type[BaseModel] | None = model
    for step in path:
        if isinstance(step, str):
            field = _fields(block).get(step)
            block = _block(field.annotation) if field else None
    return block


def _places(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Every field of a model, however deep, as the names that lead to it."""
    for written, field in _fields(model).items():
        yield (written,)
        inner = _block(field.annotation)
        if inner is not None:
            yield from ((written, *rest) for rest in _places(inner))


def _block(annotation: Any) -> type[BaseModel] | None:
    """The block inside an annotation such as `tuple[Block, ...] | None`."""
    # A generic alias is a type to isinstance and none to issubclass.
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    found = (_block(argument) for argument in get_args(annotation))
    return next((block for block in found if block is not None), None)
