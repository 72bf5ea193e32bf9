"""What a user types and reads, as the code itself says it: settings, kinds, facts, commands' answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import typer
from google.protobuf.descriptor import FieldDescriptor
from typer.testing import CliRunner

from demo.plan import Plan
from extproc.cli import app
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy.kinds import KINDS
from tests.readme.markdown import ROOT, code, fenced, table

BROKEN = """\
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: team-tokens}
spec:
  match: request.modle == "gpt-4o-mini"
  key: [identity.team, tokens.input]
  limit: {tokens: 0, per: 1w, brust: 250000}
---
apiVersion: ai-policy/v1
kind: AccesRule
metadata: {name: everybody}
spec: {effect: allow}
"""

_TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT64: "int",
    FieldDescriptor.TYPE_DOUBLE: "double",
}


def options(command: str) -> Iterator[Any]:
    """The options of one command."""
    group: Any = typer.main.get_command(app)
    yield from (p for p in group.commands[command].params if p.param_type_name == "option" and not p.hidden)


def settings() -> str:
    """Every flag of `extproc serve` with its variable and default."""
    rows = []
    for option in options("serve"):
        default = option.default.value if isinstance(option.default, Enum) else option.default
        shown = "required" if option.required else code("" if default is None else default)
        rows.append((code(option.opts[0]), code(option.envvar), shown, option.help))
    return table(("flag", "variable", "default", "what it sets"), rows)


def addresses() -> str:
    """Where `make up` listens, and what moves each."""
    plan = Plan.read({})
    rows = (
        ("gateway (Envoy)", f"127.0.0.1:{plan.gateway_port}", "EXTPROC_GATEWAY_PORT"),
        ("Envoy's admin", f"127.0.0.1:{plan.envoy_admin_port}", "EXTPROC_ENVOY_ADMIN_PORT"),
        ("sidecar, gRPC", plan.grpc, "EXTPROC_GRPC"),
        ("sidecar, HTTP admin", f"127.0.0.1:{plan.admin_port}", "EXTPROC_ADMIN_PORT"),
        ("demo provider", f"127.0.0.1:{plan.demo_port}", "EXTPROC_DEMO_PORT"),
    )
    return table(
        ("what", "where", "variable"), [(what, code(where), code(name)) for what, where, name in rows]
    )


def policy_tests() -> str:
    """The tests of the sample limits, as they are written."""
    return fenced((ROOT / "policies/tests/limits.yaml").read_text(), "yaml")


def tested() -> str:
    """What `extproc test` says of them, and of an expectation that is wrong."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "policies"
        copytree(ROOT / "policies", folder)
        tests = folder / "tests/limits.yaml"
        tests.write_text(tests.read_text().replace("retryAfterMs: 10", "retryAfterMs: 1000"))
        ran = CliRunner().invoke(app, ["test", str(folder)], env={"COLUMNS": "110"})
    return fenced(f"$ extproc test policies\n{_from_limits(ran.stdout)}", "console")


def _from_limits(said: str) -> str:
    """Without the tests of other files that pass."""
    lines = said.splitlines()
    first = next(number for number, line in enumerate(lines) if "used up its minute" in line)
    return re.sub(r"\b20\d\d-\S+Z", "2026-01-01T12:00:01Z", "\n".join(["…", *lines[first:]]))


def kinds() -> str:
    """The fields of each kind's `spec`; those without a default are marked."""
    rows = [
        (code(name), _fields(KINDS[name]))
        for name in (
            "Identity",
            "ApiKey",
            "AccessRule",
            "RequestCap",
            "ConcurrencyLimit",
            "RateLimit",
            "UsageCap",
            "Provider",
            "Price",
            "Defaults",
        )
    ]
    assert len(rows) == len(KINDS)
    return table(("kind", "fields of `spec`, * = required"), rows)


def policies() -> str:
    """The sample policies, every file as it is."""
    order = (
        "identity",
        "key-demo",
        "access",
        "request-caps",
        "concurrency",
        "limits",
        "caps",
        "providers",
        "prices",
        "defaults",
    )
    files = [(ROOT / "policies" / f"{name}.yaml").read_text() for name in order]
    assert len(files) == len(list((ROOT / "policies").glob("*.yaml")))
    return fenced("---\n".join(files), "yaml")


def _fields(spec: Any) -> str:
    fields = spec.model_fields.items()
    return ", ".join(
        code(field.alias or name) + ("*" if field.is_required() else "") for name, field in fields
    )


def facts() -> str:
    """Every variable an expression may use, with its fields and their types."""
    rows = [
        (code(field.name), ", ".join(_facts(field.message_type)) or "timestamp")
        for field in facts_pb2.Facts.DESCRIPTOR.fields
    ]
    return table(("variable", "fields"), rows)


def _facts(message: Any) -> Iterator[str]:
    if message.full_name.startswith("google."):
        return
    for field in message.fields:
        yield f"`{field.name}` {_type(field)}"


def _type(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.DoubleValue":
        return "double or null"
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map"
    name = _TYPES[field.type]
    return f"list of {name}" if field.is_repeated else name


def checked_folders() -> str:
    """A file with mistakes, and what `extproc check` says of its folder and of the sample policies."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "limits.yaml").write_text(BROKEN)
        broken = _run("check", folder).replace(folder, "broken")
    sample = _run("check", str(ROOT / "policies")).replace(f"{ROOT}/", "")
    said = f"$ extproc check policies\n{sample}\n\n$ extproc check broken\n{broken}"
    return fenced(BROKEN, "yaml") + "\n\n" + fenced(said, "console")


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    return f"{result.output}(exit code {result.exit_code})"
