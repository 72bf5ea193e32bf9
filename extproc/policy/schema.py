"""From a document to a policy object, or to every problem in it with its position.

Floor 1, pure: pydantic's errors in the words of policy files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from extproc.decision import PolicyRef
from extproc.errors import Problem
from extproc.formats.providers import NAMES
from extproc.policy.documents import Document, Path
from extproc.policy.kinds import KINDS
from extproc.policy.objects import API_VERSION, Envelope, PolicyObject, Spec
from extproc.policy.wording import spec_text


def read(
    document: Document, providers: Collection[str] = NAMES
) -> tuple[PolicyObject[Spec] | None, list[Problem]]:
    """The object a document holds; None where there is any problem.

    `providers` are the names that expressions may compare a provider with.
    """
    if not isinstance(document.value, dict):
        return None, [
            document.problem((), "a policy object is a mapping with apiVersion, kind, metadata, spec")
        ]
    envelope, problems = _validate(Envelope, document, (), providers)
    kind = document.value.get("kind")
    spec_type = KINDS.get(kind) if isinstance(kind, str) else None
    if spec_type is None:
        if isinstance(kind, str):
            message = f"there is no kind {kind!r}; the kinds are {', '.join(sorted(KINDS))}"
            problems.append(document.problem(("kind",), message))
        return None, problems
    spec: Spec | None = None
    if isinstance(document.value.get("spec", {}), dict):
        spec, spec_problems = _validate(spec_type, document, ("spec",), providers)
        problems += spec_problems
    if envelope is None or spec is None or problems:
        return None, problems
    place = document.problem((), "")
    written = json.dumps(document.value, sort_keys=True).encode()
    return PolicyObject(
        ref=PolicyRef(spec_type.__name__, envelope.metadata.name),
        spec=spec,
        file=document.file,
        line=place.line,
        digest=hashlib.sha256(written).hexdigest(),
        wording=spec_text(document),
    ), []


def _validate(
    model: type[Any], document: Document, path: Path, providers: Collection[str]
) -> tuple[Any, list[Problem]]:
    value = document.value.get(path[0], {}) if path else document.value
    try:
        # Through JSON, because pydantic's strict JSON mode knows that JSON has no tuples and no enums.
        return model.model_validate_json(json.dumps(value), context={"providers": providers}), []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)
        return None, [problem for error in errors for problem in _problems(model, document, path, error)]


def _problems(model: type[Any], document: Document, path: Path, error: Any) -> Iterator[Problem]:
    where: Path = (*path, *error["loc"])
    faults = error.get("ctx", {}).get("faults", ())
    for fault in faults:
        yield document.problem_inside(where, fault.offset, fault.message)
    if faults:
        return
    if error["type"] == "extra_forbidden":
        known = ", ".join(_fields(model, error["loc"][:-1]))
        yield document.problem(
            where, f"there is no field {where[-1]!r} here; the fields are {known}", at_key=True
        )
    elif error["type"] == "missing":
        yield document.problem(where, f"the field {where[-1]!r} is missing")
    else:
        yield document.problem(where, _message(where, error))


def _message(where: Path, error: Any) -> str:
    name = str(where[-1]) if where else "the object"
    if where == ("apiVersion",):
        return f"apiVersion must be {API_VERSION}"
    if where == ("metadata", "name"):
        return (
            "a name is up to 63 lower-case letters, digits and hyphens, beginning and ending without a hyphen"
        )
    if error["type"] == "policy":
        return str(error["msg"])
    return f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _fields(model: type[Any], path: Path) -> Iterator[str]:
    """The fields accepted in the block that `path` leads to."""
    block: Any = model
    for step in path:
        if isinstance(step, str):
            named = {field.alias or name: field.annotation for name, field in block.model_fields.items()}
            block = _block(named[step])
    for name, field in block.model_fields.items():
        yield field.alias or name


def _block(annotation: Any) -> Any:
    """The block inside an annotation such as `tuple[Block, ...] | None`."""
    # A generic alias is a type to isinstance and none to issubclass.
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    found = (_block(argument) for argument in get_args(annotation))
    return next((block for block in found if block is not None), None)
