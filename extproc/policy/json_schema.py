"""The policy language as JSON Schema: what editors complete, explain and underline while a policy is written.

Floor 1, pure: made of the models that `schema` reads objects with, so that both accept the same. What no
schema can say (whether an expression compiles, whether a name is there twice) only `check` knows.
Source: JSON Schema draft 2020-12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from extproc.policy.kinds import KINDS
from extproc.policy.objects import API_VERSION, Envelope, Metadata, Spec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DEFS: Final = "#/$defs/{model}"
_REFERENCE: Final = re.compile(r'"#/\$defs/(\w+)"')

# A spec of each kind, to begin with.
EXAMPLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "AccessRule": {"effect": "allow", "match": 'request.model.startsWith("gpt-4o")'},
        "ApiKey": {"sha256": "0f" * 32, "user": "eve", "team": "search"},
        "ConcurrencyLimit": {"key": ["identity.user"], "max": 20},
        "Defaults": {"access": "deny", "unclassified": "deny"},
        "Identity": {"sources": [{"apiKey": {}}], "anonymous": "deny"},
        "Price": {"provider": "vllm", "models": ["*"], "usdPerMillion": {"input": "0.20", "output": "0.60"}},
        "Provider": {"provider": "own_llms", "hosts": ["llm.internal"], "formats": ["openai_chat"]},
        "RateLimit": {"key": ["identity.team", "target.model"], "limit": {"tokens": 200000, "per": "1m"}},
        "RequestCap": {"outputTokens": 100000, "onExceed": "clamp"},
        "UsageCap": {"key": ["identity.team"], "limit": {"costUsd": "5000"}, "period": "month"},
    }
)


def render() -> dict[str, Any]:
    """The schema of one document of a policy file."""
    models: list[type[BaseModel]] = [Metadata, *KINDS.values()]
    _, made = models_json_schema(
        [(model, "validation") for model in models], by_alias=True, ref_template=_DEFS
    )
    plain: dict[str, Any] = {name: _plain(each) for name, each in made["$defs"].items()}
    definitions = {name: plain[name] for name in sorted(_reached(plain, ("Metadata", *KINDS)))}
    for kind, example in EXAMPLES.items():
        definitions[kind]["examples"] = [example]
    described = Envelope.model_fields
    return {
        "$schema": DIALECT,
        "title": "AI traffic policy",
        "description": "One object of a policy folder; a file holds any number, between lines of ---.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": described["api_version"].description},
            "kind": {"enum": sorted(KINDS), "description": described["kind"].description},
            "metadata": _reference("Metadata"),
            "spec": {"type": "object", "description": described["spec"].description},
        },
        "allOf": [_of_kind(name, kind) for name, kind in sorted(KINDS.items())],
        "$defs": definitions,
    }


def _of_kind(name: str, kind: type[Spec]) -> dict[str, Any]:
    """What holds for objects of one kind; `if` rather than `oneOf`, whose errors name every other kind."""
    then: dict[str, Any] = {"properties": {"spec": _reference(name)}}
    if not _may_be_empty(kind):
        then["required"] = ["spec"]
    return {"if": {"properties": {"kind": {"const": name}}, "required": ["kind"]}, "then": then}


def _may_be_empty(kind: type[BaseModel]) -> bool:
    try:
        kind.model_validate({})
    except ValidationError:
        return False
    return True


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _DEFS.format(model=name)}


def _reached(definitions: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """The definitions that these need; pydantic also makes those of what the fields become."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _REFERENCE.findall(json.dumps(definitions[name]))
    return found


def _plain(schema: Any) -> Any:
    """What pydantic made without what files never say: nulls, and titles that repeat the field's name."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _plain(value) for name, value in schema.items() if not _is_noise(name, value)}
    choices = [each for each in found.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        del found["anyOf"]
        return choices[0] | found
    return found


def _is_noise(name: str, value: Any) -> bool:
    return (name == "title" and isinstance(value, str)) or (name == "default" and value is None)
