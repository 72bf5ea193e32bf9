"""docker-compose.yml and the Dockerfile: valid, pinned, and true when their services run natively."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from demo.child import envoy_binary
from extproc.settings import Settings
from extproc.telemetry import otlp
from extproc.telemetry.otlp import Signal
from tests.e2e.composition import compose_file, dockerfile, services
from tests.e2e.namespace import run_inside
from tests.servers.prometheus import program

ROOT = Path(__file__).parent.parent

# The parts of the Compose Specification that the file uses; anything else in it is an error here.
DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h))+$"}
STRINGS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["services"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {r"^[a-zA-Z0-9._-]+$": {"$ref": "#/$defs/service"}},
        },
        "volumes": {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}},
    },
    "$defs": {
        "service": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string"},
                "build": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"context": {"type": "string"}, "target": {"type": "string"}},
                },
                "entrypoint": {"type": "array", "items": {"type": "string"}},
                "command": {"type": "array", "items": {"type": "string"}},
                "environment": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "number", "null"]},
                },
                "ports": {
                    **STRINGS,
                    "items": {"type": "string", "pattern": r"^([\d.]+:)?(\d+:)?\d+(/(tcp|udp))?$"},
                },
                "volumes": {"type": "array", "items": {"$ref": "#/$defs/volume"}},
                "depends_on": {"type": "object", "additionalProperties": {"$ref": "#/$defs/dependency"}},
                "healthcheck": {"$ref": "#/$defs/healthcheck"},
                "profiles": {**STRINGS, "minItems": 1},
                "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                "read_only": {"type": "boolean"},
                "tmpfs": STRINGS,
                "cap_drop": STRINGS,
                "security_opt": STRINGS,
                "stop_grace_period": DURATION,
            },
            "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
        },
        "volume": {
            "type": "object",
            "required": ["type", "source", "target"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["bind", "volume", "tmpfs"]},
                "source": {"type": "string"},
                "target": {"type": "string", "pattern": "^/"},
                "read_only": {"type": "boolean"},
            },
        },
        "dependency": {
            "type": "object",
            "required": ["condition"],
            "additionalProperties": False,
            "properties": {
                "condition": {
                    "enum": ["service_started", "service_healthy", "service_completed_successfully"]
                }
            },
        },
        "healthcheck": {
            "type": "object",
            "required": ["test"],
            "additionalProperties": False,
            "properties": {
                "test": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
    },
}


def test_the_file_is_valid_by_the_compose_specification() -> None:
    jsonschema.validate(compose_file(ROOT), SCHEMA)

    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        checked = run("docker", "compose", "config", "--quiet")
        assert checked.returncode == 0, checked.stderr


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_schema_refuses_what_compose_does_not_know() -> None:
    document = compose_file(ROOT)
    document["services"]["envoy"]["depend_on"] = {}

    with pytest.raises(jsonschema.ValidationError, match="depend_on"):
        jsonschema.validate(document, SCHEMA)


def test_every_dependency_is_a_service_and_has_the_health_it_is_waited_for() -> None:
    declared = services(ROOT)
    for said in compose_file(ROOT)["services"].values():
        for name, dependency in said.get("depends_on", {}).items():
            assert name in declared
            assert dependency["condition"] != "service_healthy" or declared[name].healthcheck


def test_every_image_is_pinned_to_an_exact_version() -> None:
    # Postgres counts releases by two numbers.
    exact = re.compile(r"(^postgres:\d+\.\d+|:v?\d+\.\d+\.\d+)(-[a-z]+)*$")
    stages = dockerfile(ROOT)
    from_outside = {stage.image for stage in stages.values()} - stages.keys()
    images = {said["image"] for said in compose_file(ROOT)["services"].values()}

    assert from_outside
    assert {image for image in images | from_outside if not exact.search(image)} == set()


def test_the_envoy_image_is_the_version_that_the_tests_run() -> None:
    version = subprocess.run([envoy_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    image = compose_file(ROOT)["services"]["envoy"]["image"]

    assert f"/{image.rpartition(':v')[2]}/" in version


def test_everything_is_published_on_loopback_only() -> None:
    ports = [port for said in compose_file(ROOT)["services"].values() for port in said.get("ports", [])]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_published_port_can_be_moved() -> None:
    moved = {"EXTPROC_GATEWAY_PORT": "1", "EXTPROC_ENVOY_ADMIN_PORT": "2", "EXTPROC_ADMIN_PORT": "3"}
    moved |= {"EXTPROC_DEMO_PORT": "4", "EXTPROC_JAEGER_PORT": "5"}
    moved |= {"EXTPROC_PROMETHEUS_PORT": "6", "EXTPROC_GRAFANA_PORT": "7"}
    services_moved = compose_file(ROOT, moved)["services"].values()
    hosts = [port.split(":")[1] for said in services_moved for port in said.get("ports", [])]

    assert sorted(hosts) == sorted(moved.values())


def test_every_mounted_path_is_part_of_the_repository() -> None:
    mounts = [mount for service in services(ROOT).values() for mount in service.mounts]

    assert mounts
    for source, _ in mounts:
        assert (ROOT / source).exists(), source


def test_every_path_that_the_image_copies_is_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = {path for stage in dockerfile(ROOT).values() for path in stage.copies}

    assert {path.rstrip("/").partition("/")[0] for path in copied} == kept
    for path in copied:
        assert (ROOT / path).exists(), path


def test_our_own_images_run_as_nobody_in_particular() -> None:
    stages = dockerfile(ROOT)

    assert {stages[name].user for name in ("extproc", "demo")} == {"10001"}


def test_the_images_environment_is_one_that_serve_understands() -> None:
    """A variable that no flag reads would be a wish."""
    known = subprocess.run(
        [sys.executable, "-m", "extproc", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    said = services(ROOT)["extproc"].environment
    own = {name for name in said if name.startswith("EXTPROC_")}

    assert own
    assert {name for name in own if name not in known} == set()


def test_every_service_works_natively_with_the_same_files(tmp_path: Path) -> None:
    """Commands, environments, mounts and health checks, in a network where the service names resolve."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("docker-compose.yml", "Dockerfile"):
        shutil.copy(ROOT / name, project)
    for name in ("envoy", "monitoring", "policies"):
        shutil.copytree(ROOT / name, project / name)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    programs = {"envoy": envoy_binary()} | {
        name: Path(sys.executable).parent / name for name in ("extproc", "python")
    }
    programs |= {name: Path(program(name)) for name in ("prometheus", "promtool")}
    for name, path in programs.items():
        (binaries / name).write_text(f'#!/bin/sh\nexec "{path}" "$@"\n')
        (binaries / name).chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seen = run_inside("tests.e2e.compose_native", project, scratch, binaries)

    assert sorted(seen["healthy"]) == ["demo", "envoy", "extproc", "prometheus"]
    assert seen["healthy"].index("envoy") > max(map(seen["healthy"].index, ("demo", "extproc")))
    assert seen["allowed"][0] == 200
    assert seen["denied"][0] == 403
    assert "AccessRule/no-o1-pro" in seen["denied"][1]
    assert "AccessRule/all-closed" in seen["after_edit"][1]
    assert seen["admin_without_token"] == 401
    assert seen["scraped"] == ["ai_policy_decisions_total", "envoy_http_ext_proc_ai_policy_streams_started"]


def test_a_stop_waits_until_the_sidecar_has_drained_and_tried_to_export() -> None:
    grace = compose_file(ROOT)["services"]["extproc"]["stop_grace_period"]
    drain_s = Settings(policies=ROOT / "policies").drain_s
    one_export_s = 10  # the exporter's limit, as OTEL_EXPORTER_OTLP_TIMEOUT has it by default

    assert int(grace.removesuffix("s")) >= drain_s + 2 * one_export_s


def test_jaeger_gets_what_envoy_and_the_sidecar_send() -> None:
    """Jaeger has no program here: its declaration must name the address that both use."""
    said = services(ROOT)
    envoy = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())
    (otlp,) = [each for each in envoy["static_resources"]["clusters"] if each["name"] == "otlp"]
    address = otlp["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]

    assert "jaeger" in said
    assert said["extproc"].environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4317"
    assert address == {"socket_address": {"address": "jaeger", "port_value": 4317}}


def of_profile(profile: str) -> set[str]:
    return {
        name for name, said in compose_file(ROOT)["services"].items() if said.get("profiles") == [profile]
    }


def test_what_has_a_profile_starts_only_when_asked_for_and_is_watched() -> None:
    declared = compose_file(ROOT)["services"]
    optional = of_profile("scale") | of_profile("metrics")

    assert optional == {name for name, said in declared.items() if "profiles" in said}
    for name, said in declared.items():
        assert not optional & said.get("depends_on", {}).keys(), f"{name} would not start without the profile"
    for name in optional:
        assert declared[name]["healthcheck"]


def test_what_is_for_scale_is_for_the_other_services_alone() -> None:
    declared = compose_file(ROOT)["services"]

    assert of_profile("scale") == {"valkey", "postgres"}
    assert not [name for name in of_profile("scale") if "ports" in declared[name]]


def test_grafana_finds_prometheus_and_shows_the_dashboard_to_whoever_comes() -> None:
    """Grafana has no program here: its files must lie where it looks for them."""
    grafana, prometheus = (services(ROOT)[name] for name in ("grafana", "prometheus"))
    mounted = {target: ROOT / source for source, target in grafana.mounts}
    given = {kind: mounted[f"/etc/grafana/provisioning/{kind}"] for kind in ("datasources", "dashboards")}
    (source,) = yaml.safe_load((given["datasources"] / "prometheus.yaml").read_text())["datasources"]
    (shown,) = yaml.safe_load((given["dashboards"] / "ai-policy.yaml").read_text())["providers"]
    home = Path(grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert of_profile("metrics") == {"grafana", "prometheus"}
    assert source["url"] == "http://prometheus:9090"
    assert prometheus.name == urlsplit(source["url"]).hostname
    assert (mounted[shown["options"]["path"]] / home.name).exists()
    assert str(home.parent) == shown["options"]["path"]
    assert grafana.environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert grafana.environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_prometheus_is_started_by_its_own_name_as_its_image_does() -> None:
    """The image's entrypoint is the program: a command that began with its name would be an argument."""
    said = compose_file(ROOT)["services"]["prometheus"]

    assert said["entrypoint"] == ["prometheus"]
    assert all(argument.startswith("--") for argument in said["command"])


def test_jaeger_is_sent_nothing_but_traces() -> None:
    said = services(ROOT)["extproc"].environment

    assert [signal for signal in Signal if otlp.is_exported(signal, said)] == [Signal.TRACES]


def test_the_sidecar_can_be_pointed_at_what_is_for_scale() -> None:
    """By the line in the file's own comment."""
    text = (ROOT / "docker-compose.yml").read_text()
    said = dict(re.findall(r"(EXTPROC_(?:STORE|LEDGER))=(\S+)", text.partition("\nname:")[0]))
    services = compose_file(ROOT, said)["services"]
    given = services["extproc"]["environment"]
    settings = Settings(
        policies=ROOT / "policies", store=given["EXTPROC_STORE"], ledger=given["EXTPROC_LEDGER"]
    )
    database = services["postgres"]["environment"]

    assert urlsplit(settings.store).hostname == "valkey"
    assert urlsplit(settings.ledger).hostname == "postgres"
    assert urlsplit(settings.ledger).username == database["POSTGRES_USER"]
    assert urlsplit(settings.ledger).password == database["POSTGRES_PASSWORD"]
    assert urlsplit(settings.ledger).path == f"/{database['POSTGRES_DB']}"


def test_without_a_word_the_sidecar_keeps_its_counters_itself() -> None:
    given = services(ROOT)["extproc"].environment

    assert given["EXTPROC_STORE"] == "memory:"
    assert not given["EXTPROC_LEDGER"]


def test_a_sidecar_whose_container_is_made_anew_has_the_name_of_the_one_before() -> None:
    """Without a name it takes the host's where the ledger is a Postgres: the container's id."""
    assert services(ROOT)["extproc"].environment.get("EXTPROC_INSTANCE")


def test_ci_runs_what_a_person_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()

    assert script.rstrip().endswith("exec make test")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0
