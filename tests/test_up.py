"""`make up` as a person meets it: real processes, real signals."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import child
from demo.plan import Plan, remove_keys, write_files
from extproc.errors import SettingsInvalid
from tests.e2e.gateway import free_ports
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parent.parent
VARIABLES = ("EXTPROC_GATEWAY_PORT", "EXTPROC_ENVOY_ADMIN_PORT", "EXTPROC_ADMIN_PORT", "EXTPROC_DEMO_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A running `make up`."""

    process: subprocess.Popen[str]
    ports: dict[str, int]
    said: str

    @property
    def folder(self) -> Path:
        return ROOT / ".run" / f"up-{self.ports['EXTPROC_GATEWAY_PORT']}"

    def pids(self) -> set[int]:
        return pids_that_mention(self.folder.name)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def pids_that_mention(text: str) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue  # it ended while we looked
        if text.encode() in command:
            found.add(int(entry.name))
    return found


def environment(ports: dict[str, int], **extra: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EXTPROC_", "OTEL_"))}
    return own | {name: str(port) for name, port in ports.items()} | extra


def launch(ports: dict[str, int], **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo.up"],
        cwd=ROOT,
        env=environment(ports, **extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def some_ports() -> dict[str, int]:
    return dict(zip(VARIABLES, free_ports(4), strict=True))


@contextmanager
def running(**extra: str) -> Iterator[Up]:
    ports = some_ports()
    process = launch(ports, **extra)
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        assert said.startswith("ready\n"), process.communicate(timeout=60)
        yield Up(process=process, ports=ports, said=said)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        shutil.rmtree(ROOT / ".run" / f"up-{ports['EXTPROC_GATEWAY_PORT']}", ignore_errors=True)


def test_what_it_prints_is_true() -> None:
    """Every address answers, and the three requests do what their comments say."""
    with running() as up:
        for url in re.findall(r"http://127\.0\.0\.1:\d+(?=\n)", up.said):
            assert child.get("127.0.0.1", int(url.rsplit(":")[-1]), "/")[0] > 0
        curls = re.findall(r"^  curl .*$", up.said, re.MULTILINE)
        allowed, denied, streamed = (
            subprocess.run(curl, shell=True, capture_output=True, text=True, check=True).stdout
            for curl in curls
        )
        code, errors = up.end(signal.SIGINT)

    assert allowed.startswith("HTTP/1.1 200")
    assert denied.startswith("HTTP/1.1 403")
    assert "AccessRule/no-o1-pro" in denied
    assert streamed.rstrip().endswith("data: [DONE]")
    assert (code, errors) == (0, "")
    assert up.pids() == set()


def test_ending_waits_for_an_answer_that_still_streams() -> None:
    with running() as up:
        connection = http.client.HTTPConnection("127.0.0.1", up.ports["EXTPROC_GATEWAY_PORT"], timeout=30)
        body = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        pace = {"x-demo-output-tokens": "20", "x-demo-interval-ms": "50"}
        headers = {"authorization": "Bearer sk-demo", "content-type": "application/json"} | pace
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        start = answer.read(100)
        up.process.terminate()
        rest = answer.read()
        code, errors = up.process.wait(60), up.process.communicate()[1]
        connection.close()

    assert start.startswith(b"data: ")
    assert rest.endswith(b"data: [DONE]\n\n")
    assert (code, errors) == (0, "")


def test_a_port_in_use_is_named_with_the_variable_that_moves_it() -> None:
    ports = some_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["EXTPROC_ADMIN_PORT"]))
        taken.listen()
        said, errors = launch(ports).communicate(timeout=60)

    assert said == ""
    assert f"port {ports['EXTPROC_ADMIN_PORT']} for the sidecar's admin is in use" in errors
    assert "EXTPROC_ADMIN_PORT" in errors


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EXTPROC_DEMO_PORT", "http", "EXTPROC_DEMO_PORT='http' is no port"),
        ("EXTPROC_USAGE", "magic", "set native or stream"),
        ("EXTPROC_GRPC", "nowhere", "HOST:PORT"),
        ("EXTPROC_WORKERS", "2", "EXTPROC_STORE"),
        ("EXTPROC_WORKERS", "many", "EXTPROC_WORKERS='many' is no number"),
        ("EXTPROC_STORE", "mysql://h", "redis://"),
        ("EXTPROC_LEDGER", "mysql://h", "sqlite:PATH"),
        ("EXTPROC_POLICIES", "/nowhere", "/nowhere"),
        ("UPSTREAM", "openai", "OPENAI_API_KEY"),
        ("UPSTREAM", "mistral", "known: anthropic, gemini, openai"),
    ],
)
def test_a_setting_that_makes_no_sense_ends_with_2_and_says_so(variable: str, value: str, said: str) -> None:
    got = subprocess.run(
        [sys.executable, "-m", "demo.up"],
        cwd=ROOT,
        env=environment(some_ports(), OPENAI_API_KEY="") | {variable: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert got.returncode == 2
    assert said in got.stderr
    assert "Traceback" not in got.stderr


@pytest.mark.parametrize("victim", ["provider", "serve", "envoy"])
def test_a_process_that_dies_is_named_and_takes_the_others_along(victim: str) -> None:
    name = {"provider": "provider", "serve": "sidecar", "envoy": "envoy"}[victim]
    with running() as up:
        port = str(up.ports["EXTPROC_DEMO_PORT"])
        everyone = up.pids() | pids_that_mention(port) - {up.process.pid}
        mark = {"provider": "demo.provider", "serve": "serve", "envoy": "_bin/envoy"}[victim]
        (pid,) = [each for each in everyone if mark in Path(f"/proc/{each}/cmdline").read_text()]
        os.kill(pid, signal.SIGKILL)
        _, errors = up.process.communicate(timeout=60)

        assert up.process.returncode == 1
        assert f"{name} ended with signal SIGKILL" in errors
        assert up.pids() | pids_that_mention(port) == set()


def test_killed_at_once_it_leaves_no_orphan() -> None:
    with running() as up:
        everyone = up.pids() | pids_that_mention(str(up.ports["EXTPROC_DEMO_PORT"]))
        up.process.kill()
        up.process.wait()
        child.wait_until(
            lambda: not (up.pids() | pids_that_mention(str(up.ports["EXTPROC_DEMO_PORT"]))),
            what="the end of every child",
            children=[],
            timeout_s=30,
        )

    assert len(everyone) == 3


def test_two_stacks_run_side_by_side() -> None:
    with running() as one, running() as two:
        assert one.folder != two.folder
        assert one.end()[0] == 0
        assert child.get("127.0.0.1", two.ports["EXTPROC_ADMIN_PORT"], "/readyz")[0] == 200
        assert two.end()[0] == 0


def test_a_providers_key_is_in_a_file_for_envoy_and_in_no_environment() -> None:
    with running(UPSTREAM="openai", OPENAI_API_KEY="sk-very-real") as up:
        secret = up.folder / "secrets" / "provider_openai.yaml"
        assert "sk-very-real" in secret.read_text()
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.parent.stat().st_mode & 0o777 == 0o700
        for pid in up.pids() | pids_that_mention(str(up.ports["EXTPROC_DEMO_PORT"])):
            assert b"sk-very-real" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert b"sk-very-real" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "sk-very-real" not in (up.folder / "envoy.yaml").read_text()
        assert up.end()[0] == 0

    assert not secret.exists()


def test_a_key_never_lands_in_a_file_that_others_may_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where an earlier run left a readable file."""
    monkeypatch.setattr("demo.plan.ROOT", tmp_path)
    plan = Plan.read(
        {"UPSTREAM": "openai", "OPENAI_API_KEY": "sk-1", "EXTPROC_POLICIES": str(ROOT / "policies")}
    )
    plan.secrets.mkdir(parents=True)
    (plan.secrets / "provider_openai.yaml").write_text("old")
    (plan.secrets / "provider_openai.yaml").chmod(0o644)
    write_files(plan)

    assert (plan.secrets / "provider_openai.yaml").stat().st_mode & 0o777 == 0o600
    remove_keys(plan)
    assert not plan.secrets.exists()


def test_the_body_limit_is_the_policy_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("demo.plan.ROOT", tmp_path)
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "defaults.yaml").write_text(
        "apiVersion: ai-policy/v1\nkind: Defaults\nmetadata: {name: d}\n"
        "spec: {access: deny, maxBodyBytes: 54321}\n"
    )
    config = write_files(Plan.read({"EXTPROC_POLICIES": str(policies)}))

    assert "request_body_buffer_limit: 54321" in config.read_text()


def test_several_workers_share_what_the_environment_names() -> None:
    """Each is an endpoint of the gateway's; the demo runs on any of them."""
    with RedisServer() as redis, running(EXTPROC_WORKERS="2", EXTPROC_STORE=redis.url) as up:
        port = up.ports["EXTPROC_ADMIN_PORT"]
        lines = json.loads(child.get("127.0.0.1", port, "/readyz")[1])["workers"]
        config = (up.folder / "envoy.yaml").read_text()
        (curl, *_) = re.findall(r"^  curl .*$", up.said, re.MULTILINE)
        answer = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True).stdout
        code, errors = up.end()

    assert len(lines) == 2
    for line in lines:
        assert f'"{line["endpoint"].removeprefix("unix:")}"' in config
    assert answer.startswith("HTTP/1.1 200")
    assert (code, errors) == (0, "")
    assert up.pids() == set()


def test_an_unknown_port_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="EXTPROC_GATEWAY_PORT"):
        Plan.read({"EXTPROC_GATEWAY_PORT": "0"})
