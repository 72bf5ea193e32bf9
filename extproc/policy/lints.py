"""What the objects of one folder may not be to each other: the same twice, or too few.

Floor 1, pure. What is wrong inside one object is `schema`'s; what loads and is yet of no use, `advice`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder

from extproc.errors import Problem
from extproc.policy.documents import Document, Path
from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.kinds.identity import Identity
from extproc.policy.kinds.price import Price
from extproc.policy.objects import PolicyObject, Spec

NAME: Path = ("metadata", "name")


@dataclass(frozen=True, slots=True)
class Placed:
    """An object, and the document it was read from, which knows where everything stands."""

    item: PolicyObject[Spec]
    document: Document

    @property
    def where(self) -> str:
        """The object with its place, as messages about another one name it."""
        return f"{self.item.ref} ({self.item.file}:{self.item.line})"

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at what `path` leads to; at the object's name where that is not written."""
        return self.document.problem(path if path in self.document.nodes else NAME, message)


def repeated(objects: Sequence[Placed]) -> list[Problem]:
    """Names, keys and rules that are there twice, and kinds that may be there once."""
    first: dict[object, Placed] = {}
    problems: list[Problem] = []
    for placed in objects:
        for identity, path, message in _identities(placed.item):
            earlier = first.setdefault(identity, placed)
            if earlier is not placed:
                text = message.format(item=placed.item.ref, earlier=earlier.where)
                problems.append(placed.problem(path, text))
    return problems


def _identities(item: PolicyObject[Spec]) -> Iterator[tuple[object, Path, str]]:
    """What no other object may share, where that is written, and what to say if one does."""
    yield item.ref, NAME, "{item} is there twice; first as {earlier}. A name is unique per kind"
    spec = item.spec
    if isinstance(spec, Defaults | Identity):
        yield type(spec), ("kind",), "{item} is one too many; a folder holds one and has {earlier}"
    if isinstance(spec, ApiKey):
        yield spec.sha256, ("spec", "sha256"), "{item} has the same sha256 as {earlier}; whose key is it?"
    if isinstance(spec, AccessRule):
        rule = (AccessRule, spec.effect, spec.match.text, spec.mode, spec.on_error)
        yield rule, ("spec", "match"), "{item} says the same as {earlier} and can never matter"
    if isinstance(spec, Price):
        for index, model in enumerate(spec.models):
            priced = (Price, spec.provider, model, spec.from_)
            message = f"{{item}} has a price of {model} from the same day on as {{earlier}}"
            yield priced, ("spec", "models", index), message


def incomplete(folder: Folder, objects: Sequence[Placed]) -> list[Problem]:
    """What a folder cannot do without."""
    if any(isinstance(placed.item.spec, Defaults) for placed in objects):
        return []
    what = "there is no Defaults object" if objects else "there is no policy file"
    message = f"{what}; a folder needs exactly one object of kind Defaults, in a .yaml or .yml file"
    return [Problem(str(folder), 0, 0, message)]
