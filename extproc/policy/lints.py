"""What the objects of one folder may not be to each other: the same twice, or too few.

Floor 1, pure. What is wrong inside one object is `schema`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from extproc.errors import Problem
from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.api_key import ApiKey
from extproc.policy.kinds.defaults import Defaults
from extproc.policy.kinds.identity import Identity
from extproc.policy.kinds.price import Price
from extproc.policy.objects import PolicyObject, Spec


def repeated(objects: Sequence[PolicyObject[Spec]]) -> list[Problem]:
    """Names, keys and rules that are there twice, and kinds that may be there once."""
    first: dict[object, PolicyObject[Spec]] = {}
    problems: list[Problem] = []
    for item in objects:
        for identity, message in _identities(item):
            earlier = first.setdefault(identity, item)
            if earlier is not item:
                text = message.format(item=item.ref, earlier=f"{earlier.ref} ({earlier.file}:{earlier.line})")
                problems.append(Problem(item.file, item.line, 1, text))
    return problems


def _identities(item: PolicyObject[Spec]) -> list[tuple[object, str]]:
    """What no other object may share, with what to say if one does."""
    found: list[tuple[object, str]] = [
        (item.ref, "{item} is there twice; first as {earlier}. A name is unique per kind")
    ]
    spec = item.spec
    if isinstance(spec, Defaults | Identity):
        found.append((type(spec), "{item} is one too many; a folder holds one and has {earlier}"))
    if isinstance(spec, ApiKey):
        found.append((spec.sha256, "{item} has the same sha256 as {earlier}; whose key is it?"))
    if isinstance(spec, AccessRule):
        rule = (AccessRule, spec.effect, spec.match.text, spec.mode, spec.on_error)
        found.append((rule, "{item} says the same as {earlier} and can never matter"))
    if isinstance(spec, Price):
        for model in spec.models:
            priced = (Price, spec.provider, model, spec.from_)
            found.append((priced, f"{{item}} has a price of {model} from the same day on as {{earlier}}"))
    return found


def incomplete(folder: Path, objects: Sequence[PolicyObject[Spec]]) -> list[Problem]:
    """What a folder cannot do without."""
    if any(isinstance(item.spec, Defaults) for item in objects):
        return []
    what = "there is no Defaults object" if objects else "there is no policy file"
    message = f"{what}; a folder needs exactly one object of kind Defaults, in a .yaml or .yml file"
    return [Problem(str(folder), 0, 0, message)]
