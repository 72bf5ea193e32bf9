"""Tests of a policy folder, as its `tests/*.yaml` write them: read strictly, with every problem at once.

Floor 3, but pure apart from reading the files. What a test comes to is `trial`'s.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from yaml import Node

from extproc.decision import Mode, PolicyRef, Unit
from extproc.errors import PolicyFolderInvalid, Problem
from extproc.model import RequestHead, Source
from extproc.policy import documents, money, sentences
from extproc.policy.documents import Document, Path
from extproc.policy.limited import MAX_AMOUNT, Limit
from extproc.policy.policyset import PolicySet
from extproc.rehearsal.stage import Given
from extproc.rehearsal.standing_in import shows_key, standing_in
from extproc.rehearsal.written import Expect, PolicyTest

FOLDER: Final = "tests"
_SUFFIXES: Final = frozenset({".yaml", ".yml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test, and where it is written (lines count from 1)."""

    name: str
    file: str
    line: int
    policies: PolicySet  # with a key that the test can show, where it names one
    given: Given
    expect: Expect


def read(folder: FilePath, policies: PolicySet, now_ns: int) -> tuple[Case, ...]:
    """Every test of the folder, file by file. Raises `PolicyFolderInvalid` with all problems."""
    problems: list[Problem] = []
    cases: list[Case] = []
    for path in _files(folder):
        found, wrong = documents.read(f"{FOLDER}/{path.name}", _content(path))
        problems += wrong
        for document in found:
            for case, wrong in _in_document(document, policies, now_ns):
                problems += wrong
                cases += [case] if case else []
    problems += _repeated(cases)
    if problems:
        raise PolicyFolderInvalid(tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column))))
    return tuple(cases)


def _files(folder: FilePath) -> list[FilePath]:
    found = folder / FOLDER
    if not found.is_dir():
        return []
    return sorted(path for path in found.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _content(path: FilePath) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"cannot be read: {error.strerror or type(error).__name__}"
        raise PolicyFolderInvalid((Problem(f"{FOLDER}/{path.name}", 0, 0, why),)) from None


def _repeated(cases: list[Case]) -> Iterator[Problem]:
    first: dict[str, Case] = {}
    for case in cases:
        earlier = first.setdefault(case.name, case)
        if earlier is not case:
            message = f"a test of this name is there already ({earlier.file}:{earlier.line})"
            yield Problem(case.file, case.line, 1, message)


def _in_document(
    document: Document, policies: PolicySet, now_ns: int
) -> Iterator[tuple[Case | None, list[Problem]]]:
    if not isinstance(document.value, list):
        wanted = "a file of tests is a list; each item has name, given, request and expect"
        yield None, [document.problem((), wanted)]
        return
    for item in _items(document):
        test, problems = _test(item)
        if test is None:
            yield None, problems
            continue
        problems = list(_wrong(test, item, policies))
        yield None if problems else _case(test, item, policies, now_ns), problems


def _items(document: Document) -> Iterator[Document]:
    """Each item of the list as a document of its own."""
    nodes, keys = (_by_place(found) for found in (document.nodes, document.keys))
    for place, value in enumerate(document.value):
        yield replace(document, value=value, nodes=nodes[place], keys=keys[place])


def _by_place(found: Mapping[Path, Node]) -> Mapping[Any, Mapping[Path, Node]]:
    """In one go: a folder may have thousands of tests."""
    parts: defaultdict[Any, dict[Path, Node]] = defaultdict(dict)
    for path, node in found.items():
        if path:
            parts[path[0]][path[1:]] = node
    return parts


# --- one test


def _test(item: Document) -> tuple[PolicyTest | None, list[Problem]]:
    try:
        # Through JSON, because pydantic's strict JSON mode knows that JSON has no tuples and no enums.
        return PolicyTest.model_validate_json(json.dumps(item.value)), []
    except ValidationError as invalid:
        return None, [_problem(item, error) for error in invalid.errors(include_url=False)]


def _problem(item: Document, error: Any) -> Problem:
    where = tuple(error["loc"])
    is_unknown = error["type"] == "extra_forbidden"
    return item.problem(where, sentences.sentence(PolicyTest, where, error), at_key=is_unknown)


def _wrong(test: PolicyTest, item: Document, policies: PolicySet) -> Iterator[Problem]:
    """What the folder has nothing of."""
    known = {each.ref for each in policies.objects}
    named: dict[Path, PolicyRef] = {
        ("expect", "wouldDeny", place): ref for place, ref in enumerate(test.expect.would_deny or ())
    }
    if test.expect.by is not None:
        named["expect", "by"] = test.expect.by
    for path, ref in named.items():
        if ref not in known:
            yield item.problem(path, f"there is no {ref} in this folder")
    if test.given.key is not None:
        if PolicyRef("ApiKey", test.given.key) not in known:
            yield item.problem(("given", "key"), f"there is no ApiKey/{test.given.key} in this folder")
        elif not shows_key(policies):
            yield item.problem(("given", "key"), "no Identity of this folder looks for an API key")
    for name in test.given.used:
        try:
            _amount(name, test.given.used[name], policies)
        except ValueError as error:
            yield item.problem(("given", "used", name), str(error), at_key=True)


def _amount(name: str, amounts: Mapping[str, Any], policies: PolicySet) -> tuple[PolicyRef, int]:
    """The limit, and what is used of it in its unit. Raises `ValueError` for what it cannot be."""
    ref = PolicyRef(*name.partition("/")[::2])
    limit = policies.limits_by_ref.get(ref)
    if limit is None or limit.mode is Mode.DISABLED:
        raise ValueError(f"{name} is no limit of this folder" if limit is None else f"{name} is disabled")
    unit = to_camel(limit.spec.unit)
    if list(amounts) != [unit]:
        raise ValueError(f"{name} counts {unit}: write {{{unit}: AMOUNT}}")
    return ref, _counted(limit, amounts[unit])


def _counted(limit: Limit, value: Any) -> int:
    if limit.spec.unit is Unit.COST_USD:
        return money.nano_usd(money.decimal(value))
    if type(value) is not int or not 0 <= value <= MAX_AMOUNT:
        raise ValueError(f"an amount is a whole number from 0 to {MAX_AMOUNT}")
    return value


def _case(test: PolicyTest, item: Document, policies: PolicySet, now_ns: int) -> Case:
    given, request = test.given, test.request
    source = Source(address=given.source.address, principal=given.source.principal, route=given.source.route)
    is_json = request.body is not None and not isinstance(request.body, str)
    body = json.dumps(request.body) if is_json else request.body or ""
    head = RequestHead(
        method=request.method or ("GET" if request.body is None else "POST"),
        host=request.host,
        path=request.path,
        headers={"content-type": "application/json", **request.headers} if is_json else request.headers,
        source=source,
        has_body=request.body is not None,
    )
    if given.key is not None:
        policies, head = standing_in(policies, head, given.key)
    return Case(
        name=test.name,
        file=item.file,
        line=item.problem((), "").line,
        policies=policies,
        given=Given(
            head=head,
            body=body.encode(),
            at_ns=now_ns if given.now is None else given.now,
            caller=given.identity.identity if given.identity else None,
            used=dict(_amount(name, amounts, policies) for name, amounts in given.used.items()),
        ),
        expect=test.expect,
    )
