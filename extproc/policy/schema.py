"""From a document to a policy object, or to every problem in it with its position.

Floor 1, pure. How pydantic's errors are said is `sentences`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from extproc.decision import PolicyRef
from extproc.errors import Problem
from extproc.policy import sentences
from extproc.policy.documents import Document, Path
from extproc.policy.kinds import KINDS
from extproc.policy.literals import KNOWN
from extproc.policy.objects import Envelope, PolicyObject, Spec
from extproc.policy.suggest import did_you_mean
from extproc.policy.wording import spec_text


def read(
    document: Document, known: Mapping[str, tuple[str, ...]] = KNOWN
) -> tuple[PolicyObject[Spec] | None, list[Problem]]:
    """The object a document holds; None where there is any problem.

    `known` is what facts may be in this folder, see `literals.known_values`.
    """
    if not isinstance(document.value, dict):
        return None, [
            document.problem((), "a policy object is a mapping with apiVersion, kind, metadata, spec")
        ]
    envelope, problems = _validate(Envelope, document, (), known)
    kind = document.value.get("kind")
    spec_type = KINDS.get(kind) if isinstance(kind, str) else None
    if spec_type is None:
        if isinstance(kind, str):
            message = f"there is no such kind; the kinds are {', '.join(sorted(KINDS))}"
            problems.append(document.problem(("kind",), message + did_you_mean(kind, KINDS)))
        return None, problems
    spec: Spec | None = None
    if isinstance(document.value.get("spec", {}), dict):
        spec, spec_problems = _validate(spec_type, document, ("spec",), known)
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
    model: type[Any], document: Document, path: Path, known: Mapping[str, tuple[str, ...]]
) -> tuple[Any, list[Problem]]:
    value = document.value.get(path[0], {}) if path else document.value
    empty = {(*path, *inner) for inner in _empty(value) if path or inner[0] != "spec" or len(inner) == 1}
    try:
        # Through JSON, because pydantic's strict JSON mode knows that JSON has no tuples and no enums.
        valid = model.model_validate_json(json.dumps(value), context={"known": known})
    except ValidationError as invalid:
        errors = _without_consequences(invalid.errors(include_url=False))
    else:
        if not empty:
            return valid, []
        errors = []
    unknown = {(*path, *error["loc"]) for error in errors if error["type"] == "extra_forbidden"}
    left_empty = [
        document.problem(where, f"{sentences.name(where)} has no value; write one, or leave the field out")
        for where in sorted(empty - unknown, key=str)
    ]
    return None, left_empty + [
        problem
        for error in errors
        if not _is_about_nothing((*path, *error["loc"]), error["type"], empty)
        for problem in _problems(model, document, path, error)
    ]


def _without_consequences(errors: Sequence[Any]) -> list[Any]:
    """Without lists that are too short for the one reason that an entry of theirs is wrong."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(each["loc"][: len(error["loc"])] == error["loc"] != each["loc"] for each in errors)
    ]


def _empty(value: Any) -> Iterator[Path]:
    """Where nothing is written behind a name or a dash."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from ((name,),) if inner is None else ((name, *path) for path in _empty(inner))


def _is_about_nothing(where: Path, error_type: str, empty: set[Path]) -> bool:
    """Whether an error is the consequence of a value that is not there."""
    if error_type == "extra_forbidden":
        return False
    return where in empty or (
        error_type == sentences.OWN and any(each[: len(where)] == where for each in empty)
    )


def _problems(model: type[Any], document: Document, path: Path, error: Any) -> Iterator[Problem]:
    context = error.get("ctx", {})
    where: Path = (*path, *error["loc"], *context.get("at", ()))
    faults = context.get("faults", ())
    for fault in faults:
        yield document.problem_inside(where, fault.offset, fault.message)
    if not faults:
        is_unknown = error["type"] == "extra_forbidden"
        yield document.problem(where, sentences.sentence(model, where, error), at_key=is_unknown)
