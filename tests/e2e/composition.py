"""What docker-compose.yml and the Dockerfile together say about each service, as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass
class Stage:
    """One stage of the Dockerfile, with what it inherits."""

    image: str  # what FROM names
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    user: str = "root"
    copies: list[str] = field(default_factory=list)  # from the build context


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service as it would run."""

    name: str
    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str]
    mounts: list[tuple[str, str]]  # host path relative to the project, container path
    waits_for: list[str]


def compose_file(project: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The parsed file, its variables replaced as Compose does."""

    def value(match: re.Match[str]) -> str:
        return (environment or {}).get(match[1]) or match[2] or ""

    document: dict[str, Any] = yaml.safe_load(
        VARIABLE.sub(value, (project / "docker-compose.yml").read_text())
    )
    return document


def dockerfile(project: Path) -> dict[str, Stage]:
    """The stages of the Dockerfile by name."""
    stages: dict[str, Stage] = {}
    current = Stage(image="")
    for word, rest in _instructions((project / "Dockerfile").read_text()):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            inherited = stages.get(image, Stage(image=image))
            current = Stage(
                image=image,
                environment=dict(inherited.environment),
                user=inherited.user,
            )
            stages[name] = current
        elif word == "ENV":
            current.environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "ENTRYPOINT":
            current.entrypoint = json.loads(rest)
        elif word == "CMD":
            current.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            current.healthcheck = json.loads(rest.partition("CMD ")[2])
        elif word == "USER":
            current.user = rest
        elif word == "COPY" and not rest.startswith("--from="):
            current.copies += rest.split()[:-1]
    return stages


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line]
    return [(word, rest.strip()) for word, _, rest in found]


def services(project: Path) -> dict[str, Service]:
    """Every service, image and declaration together."""
    document = compose_file(project)
    stages = dockerfile(project)
    return {name: _service(name, said, stages) for name, said in document["services"].items()}


def _service(name: str, said: dict[str, Any], stages: dict[str, Stage]) -> Service:
    stage = stages[said["build"]["target"]] if "build" in said else Stage(image=said["image"])
    kind, *test = said.get("healthcheck", {}).get("test", ["CMD", *stage.healthcheck])
    assert kind == "CMD"
    return Service(
        name=name,
        command=said.get("entrypoint", stage.entrypoint) + said.get("command", stage.command),
        environment=stage.environment | said.get("environment", {}),
        healthcheck=test,
        mounts=[
            (each["source"], each["target"]) for each in said.get("volumes", []) if each["type"] == "bind"
        ],
        waits_for=list(said.get("depends_on", {})),
    )
