"""cel-cpp's complaints about an expression, in the words of policy files.

Floor 1, pure: text in, text out. The compiler names its operators `_==_`, its messages by protobuf and its
tokens as its grammar does; whoever writes a policy knows none of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy.literals import VARIABLES
from extproc.policy.suggest import did_you_mean

_MESSAGES: Mapping[str, str] = MappingProxyType(
    {
        field.message_type.full_name: field.name
        for field in facts_pb2.Facts.DESCRIPTOR.fields
        if field.message_type
    }
)
_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        field.name: tuple(each.name for each in field.message_type.fields)
        for field in facts_pb2.Facts.DESCRIPTOR.fields
        if field.message_type and field.name != "now"
    }
)

# The functions and macros of CEL's standard library and of the two extensions that are on, as they are used.
FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "all": 'request.models.all(m, m.startsWith("gpt"))',
        "bool": 'bool(identity.claims["admin"])',
        "charAt": "request.model.charAt(0)",
        "contains": 'request.model.contains("mini")',
        "double": "double(tokens.input)",
        "duration": 'duration("30s")',
        "endsWith": 'request.model.endsWith("-mini")',
        "exists": 'request.tools.exists(t, t == "search")',
        "exists_one": 'request.tools.exists_one(t, t == "search")',
        "filter": 'request.tools.filter(t, t != "search")',
        "format": '"%s/%s".format([identity.team, identity.user])',
        "getDate": "now.getDate()",
        "getDayOfMonth": "now.getDayOfMonth()",
        "getDayOfWeek": 'now.getDayOfWeek("Europe/Berlin")',
        "getDayOfYear": "now.getDayOfYear()",
        "getFullYear": "now.getFullYear()",
        "getHours": 'now.getHours("Europe/Berlin")',
        "getMilliseconds": "now.getMilliseconds()",
        "getMinutes": "now.getMinutes()",
        "getMonth": "now.getMonth()",
        "getSeconds": "now.getSeconds()",
        "has": "has(request.temperature)",
        "hasValue": 'request.headers[?"x-tier"].hasValue()',
        "indexOf": 'request.path.indexOf("/")',
        "int": 'int(request.headers["x-tier"])',
        "join": 'identity.groups.join(",")',
        "lastIndexOf": 'request.path.lastIndexOf("/")',
        "lowerAscii": "identity.team.lowerAscii()",
        "map": 'request.tools.map(t, t + "!")',
        "matches": 'request.model.matches("^gpt-[45]")',
        "optFlatMap": 'request.headers[?"x-tier"].optFlatMap(t, optional.of(t))',
        "optMap": 'request.headers[?"x-tier"].optMap(t, t.lowerAscii())',
        "or": 'request.headers[?"x-tier"].or(optional.of("free"))',
        "orValue": 'request.headers[?"x-tier"].orValue("free")',
        "replace": 'request.model.replace("models/", "")',
        "size": "size(request.tools)",
        "split": 'request.path.split("/")',
        "startsWith": 'request.model.startsWith("gpt")',
        "string": "string(tokens.input)",
        "substring": "request.model.substring(0, 3)",
        "timestamp": 'timestamp("2027-01-31T00:00:00Z")',
        "trim": "identity.team.trim()",
        "uint": "uint(tokens.input)",
        "upperAscii": "identity.team.upperAscii()",
        "value": 'request.headers[?"x-tier"].value()',
    }
)

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "string": "text",
        "int": "a whole number",
        "uint": "a whole number",
        "double": "a number with decimals",
        "wrapper(double)": "a number with decimals",
        "bool": "true or false",
        "null": "null",
        "bytes": "bytes",
        "google.protobuf.Timestamp": "a time",
        "google.protobuf.Duration": "a duration",
    }
)
_ORDER: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})

_NO_FIELD: Final = re.compile(r"undefined field '([^']*)' not found in struct '([^']*)'")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD: Final = re.compile(r"found no matching overload for '([^']*)' applied to '(.*)'")
_UNREADABLE: Final = re.compile(r"Syntax error: token recognition error at: '(.)", re.DOTALL)
_UNEXPECTED: Final = re.compile(
    r"Syntax error: (?:mismatched|extraneous) input '(.*?)' expecting (.*)", re.DOTALL
)


def plain(text: str, offset: int, complaint: str) -> str:
    """The complaint about character `offset` of the expression `text`, with what would be accepted."""
    complaint = complaint.removesuffix(" [INVALID_ARGUMENT]").removesuffix(" (in container '')")
    for pattern, say in _SENTENCES:
        found = pattern.search(complaint)
        if found:
            return say(text, offset, found)
    return f"this does not compile: {complaint}"


def _no_field(_text: str, _offset: int, found: re.Match[str]) -> str:
    field, message = found.groups()
    variable = _MESSAGES.get(message, "")
    fields = _FIELDS.get(variable, ())
    return (
        f"{variable or 'this'} has no field `{field}`"
        f"{'; its fields are ' + ', '.join(fields) if fields else ''}{did_you_mean(field, fields)}"
    )


def _undeclared(text: str, offset: int, found: re.Match[str]) -> str:
    name = found[1]
    if name in _WORDS:
        return _WORDS[name]
    if text[offset : offset + 1] == "(" or text.startswith(f"{name}(", max(0, offset)):
        if name in FUNCTIONS:
            return f"`{name}` is not used like this; an example is {FUNCTIONS[name]}"
        hint = did_you_mean(name, FUNCTIONS)
        return f"there is no function `{name}`{hint or '; CEL has ' + ', '.join(FUNCTIONS)}"
    first = name.partition(".")[0]
    return (
        f"there is no variable `{first}`; the variables are {', '.join(VARIABLES)}, and text is in quotes"
        f"{did_you_mean(first, VARIABLES)}"
    )


def _overload(_text: str, _offset: int, found: re.Match[str]) -> str:
    operator, types = found[1].strip("_@"), _split(found[2].removeprefix("(").removesuffix(")"))
    remedy = next((remedy for fits, remedy in _REMEDIES if fits(operator, types)), "")
    return f"`{operator}` does not take {' and '.join(map(_type, types))}{'; ' + remedy if remedy else ''}"


def _unreadable(_text: str, _offset: int, found: re.Match[str]) -> str:
    return _CHARACTERS.get(found[1], "this character has no meaning here")


def _unexpected(text: str, offset: int, found: re.Match[str]) -> str:
    token, expected = found.groups()
    if not text.strip():
        return "an expression is missing, such as true"
    if text[:offset].rstrip().endswith("not"):
        return _WORDS["not"]
    if token == "<EOF>":  # noqa: S105  no password
        return "the expression ends too early"
    if token == "," and expected == "')'":  # noqa: S105  no password
        return 'a list is in brackets: ["a", "b"]'
    return _WORDS.get(token, "this is not expected here")


_Say = Callable[[str, int, "re.Match[str]"], str]
_SENTENCES: tuple[tuple[re.Pattern[str], _Say], ...] = (
    (_NO_FIELD, _no_field),
    (_UNDECLARED, _undeclared),
    (_OVERLOAD, _overload),
    (_UNREADABLE, _unreadable),
    (_UNEXPECTED, _unexpected),
    (re.compile(r"Syntax error: missing '\)'"), lambda *_: "a closing ) is missing"),
    (re.compile(r"Syntax error: no viable alternative"), lambda *_: "this is not expected here"),
    (re.compile(r"recursion"), lambda *_: "the expression is nested too deeply"),
)

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "and": "write && for and",
        "or": "write || for or",
        "not": "write ! for not",
        "AND": "write && for and",
        "OR": "write || for or",
        "NOT": "write ! for not",
        "True": "write true",
        "False": "write false",
        "None": "write null",
    }
)
_CHARACTERS: Mapping[str, str] = MappingProxyType(
    {
        "=": "write == to compare",
        "&": "write && for and",
        "|": "write || for or",
        '"': "this text has no closing quote",
        "'": "this text has no closing quote",
    }
)


def _is(operators: frozenset[str] | set[str], *wanted: str) -> Callable[[str, tuple[str, ...]], bool]:
    """Whether it is one of these operators, between these types in either order."""
    return lambda operator, types: operator in operators and sorted(types) == sorted(wanted)


_REMEDIES: tuple[tuple[Callable[[str, tuple[str, ...]], bool], str], ...] = (
    (_is(_ORDER, "double", "int"), "write the number with a decimal point, such as 5.0"),
    (_is(_ORDER, "wrapper(double)", "int"), "write the number with a decimal point, such as 5.0"),
    (_is(_ORDER, "string", "int"), "text is in quotes, numbers are not"),
    (_is(_ORDER, "bool", "string"), "true and false are written without quotes"),
    (_is(_ORDER, "list(string)", "string"), 'ask for one of a list with "a" in LIST'),
    (_is(_ORDER, "google.protobuf.Timestamp", "string"), 'write timestamp("2027-01-31T00:00:00Z")'),
    (
        _is({"in"}, "string", "string"),
        "what is on the right is a list; parts of a text are TEXT.contains(PART)",
    ),
    (_is({"contains"}, "list(string)", "string"), 'ask for one of a list with "a" in LIST'),
    (lambda operator, _: operator in {"&&", "||", "!"}, "both sides compare something, such as a == b"),
)


def _type(name: str) -> str:
    if name in _MESSAGES and name not in _TYPES:
        return f"the whole of {_MESSAGES[name]}"
    if name.startswith("list("):
        return "a list"
    if name.startswith("map("):
        return "a map"
    return _TYPES.get(name, name)


def _split(types: str) -> tuple[str, ...]:
    """The types between commas that are in no brackets."""
    parts, depth = [""], 0
    for character in types:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)
