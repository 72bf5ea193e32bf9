"""The command line as a person types it: what it prints, where, and with which exit code."""

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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from typer.testing import CliRunner

from demo import child
from extproc import cli
from extproc.measure import vocab
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from tests.e2e.gateway import free_ports
from tests.e2e.otlp import OtlpReceiver

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "policies"
TOKEN = "token-canary-9b1e"
POSITION = re.compile(r"^[\w.-]+\.yaml:\d+:\d+: \S", re.MULTILINE)

GOOD = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow, maxBodyBytes: 54321}
"""
BROKEN = {
    "fields.yaml": "kind: Nothing\n",
    "rules.yaml": """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: one}
spec: {effect: allow, match: 'request.modell == "x"', sped: 1}
""",
    "syntax.yaml": "apiVersion: [\n",
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good", {"all.yaml": GOOD})


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return write(tmp_path / "broken", BROKEN)


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def environment(**extra: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EXTPROC_", "OTEL_"))}
    # Help in one column, whatever terminal the tests run in.
    return own | {"COLUMNS": "200", "NO_COLOR": "1"} | extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def extproc(*arguments: str | Path, **extra: str) -> Said:
    """Run a command in this process."""
    env = {name: None for name in os.environ if name.startswith(("EXTPROC_", "OTEL_"))}
    got = CliRunner().invoke(cli.app, [str(each) for each in arguments], env={**env, **environment(**extra)})
    assert got.exception is None or isinstance(got.exception, SystemExit), got.exception
    return Said(code=got.exit_code, out=got.stdout, err=got.stderr)


def serve(*arguments: str | Path, **extra: str) -> Said:
    """Run a server that is not expected to come up, as a process."""
    got = subprocess.run(
        [sys.executable, "-m", "extproc", "serve", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in got.stderr, got.stderr
    return Said(code=got.returncode, out=got.stdout, err=got.stderr)


# --- help and version


def test_help_lists_every_command() -> None:
    said = extproc("--help")

    assert said.code == 0
    for command in ("serve", "check", "envoy", "vocab"):
        assert re.search(rf"\b{command}\b", said.out)


def test_without_a_command_help_is_printed_and_nothing_was_done() -> None:
    said = extproc()

    assert said.code == 2
    assert "Usage" in said.out + said.err


def test_the_version_is_the_packages() -> None:
    said = extproc("--version")

    assert (said.code, said.out.strip()) == (0, version("extproc"))


@pytest.mark.parametrize("command", ["serve", "check", "envoy", "vocab"])
def test_help_of_a_command_names_no_secret_of_the_environment(command: str) -> None:
    secrets = {
        "EXTPROC_ADMIN_TOKEN": TOKEN,
        "EXTPROC_STORE": f"redis://:{TOKEN}@h",
        "EXTPROC_LEDGER": f"postgresql://u:{TOKEN}@h/db",
    }
    said = extproc(command, "--help", EXTPROC_POLICIES="/tmp/x", **secrets)

    assert said.code == 0
    assert TOKEN not in said.out + said.err


def test_help_of_serve_names_the_variable_of_every_setting() -> None:
    said = extproc("serve", "--help")
    flags = set(re.findall(r"--[a-z][a-z-]*", said.out)) - {"--help"}

    assert len(flags) > 10
    for flag in flags:
        variable = f"EXTPROC_{flag[2:].upper().replace('-', '_')}"
        assert variable in said.out, f"{flag} has no variable"


# --- check


def test_check_passes_the_sample_policies() -> None:
    said = extproc("check", SAMPLES)

    assert said.code == 0
    assert re.search(r"\d+ objects, revision [0-9a-f]{12}", said.out)
    assert said.err == ""


def test_check_as_json_lists_what_is_loaded() -> None:
    said = extproc("check", SAMPLES, "--json")

    assert said.code == 0
    assert said.json["ok"] is True
    assert {"kind": "Defaults", "name": "main"}.items() <= next(
        item for item in said.json["objects"] if item["kind"] == "Defaults"
    ).items()
    assert said.json["revision"] in extproc("check", SAMPLES).out
    assert "sha256" not in said.out


def test_check_says_what_a_folder_changes_and_which_counters_start_anew(tmp_path: Path) -> None:
    candidate = tmp_path / "candidate"
    shutil.copytree(SAMPLES, candidate)
    caps = (candidate / "caps.yaml").read_text()
    (candidate / "caps.yaml").write_text(caps.replace("period: month", "period: week"))

    said = extproc("check", candidate, "--against", SAMPLES)
    as_json = extproc("check", candidate, "--against", SAMPLES, "--json")
    same = extproc("check", SAMPLES, "--against", SAMPLES)

    assert "changed UsageCap/team-month; counters start anew UsageCap/team-month" in said.out
    assert as_json.json["changes"] == {
        "added": [],
        "removed": [],
        "changed": ["UsageCap/team-month"],
        "restarted": ["UsageCap/team-month"],
    }
    assert "no object" in same.out
    assert extproc("check", SAMPLES, "--against", tmp_path / "nothing").code == 1


def test_check_prints_every_problem_with_its_position_and_ends_with_1(broken: Path) -> None:
    said = extproc("check", broken)

    lines = said.err.splitlines()
    assert said.code == 1
    assert said.out == ""
    assert len(POSITION.findall(said.err)) == len(lines) >= 4
    assert {line.partition(":")[0] for line in lines} == BROKEN.keys()


def test_check_as_json_carries_the_same_problems(broken: Path) -> None:
    said, plain = extproc("check", broken, "--json"), extproc("check", broken)

    problems = said.json["problems"]
    lines = [f"{p['file']}:{p['line']}:{p['column']}: {p['message']}" for p in problems]
    assert said.code == 1
    assert said.json["ok"] is False
    assert lines == plain.err.splitlines()
    assert all(p["line"] > 0 and p["column"] > 0 for p in problems)


@pytest.mark.parametrize("as_json", [False, True])
def test_check_of_a_folder_that_is_not_there_names_it(tmp_path: Path, as_json: bool) -> None:  # noqa: FBT001
    said = extproc("check", tmp_path / "nowhere", *(["--json"] if as_json else []))

    assert said.code == 1
    assert str(tmp_path / "nowhere") in said.out + said.err


# --- envoy


def listeners(rendered: Any) -> list[Any]:
    found: list[Any] = rendered["static_resources"]["listeners"]
    return found


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_envoy_renders_what_loads_and_takes_the_folders_body_limit(good: Path, as_json: list[str]) -> None:
    said = extproc("envoy", "--policies", good, "--grpc", "unix:/run/a.sock", *as_json)

    rendered = json.loads(said.out) if as_json else yaml.safe_load(said.out)
    assert said.code == 0
    assert listeners(rendered)
    assert "54321" in re.findall(r'request_body_buffer_limit"?: (\d+)', said.out)
    assert set(re.findall(r'request_body_buffer_limit"?: (\d+)', said.out)) == {"54321"}
    assert "/run/a.sock" in said.out


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_envoys_filter_renders_what_loads_and_takes_the_folders_body_limit(
    good: Path, as_json: list[str]
) -> None:
    said = extproc("envoy", "--filter", "--policies", good, *as_json)

    rendered = json.loads(said.out) if as_json else yaml.safe_load(said.out)
    assert said.code == 0
    assert {"http_filters", "routes", "clusters"} <= rendered.keys()
    assert set(re.findall(r'request_body_buffer_limit"?: (\d+)', said.out)) == {"54321"}


def test_envoy_takes_its_settings_from_the_environment(good: Path) -> None:
    said = extproc(
        "envoy",
        EXTPROC_POLICIES=str(good),
        EXTPROC_GRPC="127.0.0.1:7777",
        EXTPROC_GATEWAY_PORT="7778",
        EXTPROC_ENVOY_ADMIN_PORT="7779",
    )

    rendered = yaml.safe_load(said.out)
    assert listeners(rendered)[0]["address"]["socket_address"]["port_value"] == 7778
    assert rendered["admin"]["address"]["socket_address"]["port_value"] == 7779
    assert "port_value: 7777" in said.out
    assert "54321" in said.out


def test_envoy_gets_an_endpoint_for_every_worker() -> None:
    said = extproc("envoy", "--grpc", "unix:/run/a.sock", "--grpc", "unix:/run/b.sock", "--workers", "2")
    cluster = next(
        each
        for each in yaml.safe_load(said.out)["static_resources"]["clusters"]
        if each["name"] == "ai_policy"
    )
    (locality,) = cluster["load_assignment"]["endpoints"]
    paths = [each["endpoint"]["address"]["pipe"]["path"] for each in locality["lb_endpoints"]]

    assert paths == ["/run/a.0.sock", "/run/a.1.sock", "/run/b.0.sock", "/run/b.1.sock"]
    assert extproc("envoy", EXTPROC_WORKERS="2", EXTPROC_GRPC="h:7").out.count("port_value: 8}") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--grpc", "h:1", "--grpc", "h:2", "--workers", "2"], "h:2 twice"),
        (["--grpc", "h:65535", "--workers", "2"], "h:65536"),
        (["--grpc", "nowhere", "--workers", "2"], "nowhere"),
        (["--grpc", "nowhere"], "nowhere"),
        (["--gateway-port", "70000"], "--gateway-port"),
        (["--admin-port", "-1"], "--admin-port"),
        (["--upstream", "mistral"], "mistral"),
        (["--policies", "/nowhere"], "/nowhere"),
    ],
)
def test_envoy_refuses_what_makes_no_sense_with_2(arguments: list[str], named: str) -> None:
    said = extproc("envoy", *arguments)

    assert said.code == 2
    assert said.out == ""
    assert named in said.err


# --- vocab


def no_source(_: vocab.Wanted) -> dict[str, bytes]:
    raise OSError("unreachable")


@pytest.fixture
def no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reaches nothing."""
    sources = (vocab.Source(name="a place", read=no_source),)
    monkeypatch.setattr(vocab.fetch, "__kwdefaults__", {"sources": sources})


def test_vocab_without_any_source_says_what_was_tried_and_ends_with_2(
    tmp_path: Path,
    no_sources: None,  # noqa: ARG001
) -> None:
    said = extproc("vocab", tmp_path / "v")

    assert said.code == 2
    assert "a place: OSError" in said.out
    assert "o200k_base" in said.err


def test_vocab_as_json_says_what_was_tried_beside_it(
    tmp_path: Path,
    no_sources: None,  # noqa: ARG001
) -> None:
    said = extproc("vocab", "--json", tmp_path / "v")

    assert said.code == 2
    assert said.out == ""
    assert "a place: OSError" in said.err


def test_vocab_that_cannot_write_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = (vocab.Source(name="a place", read=lambda _: {each.name: b"" for each in vocab.VOCABULARIES}),)
    monkeypatch.setattr(vocab.fetch, "__kwdefaults__", {"sources": sources})
    monkeypatch.setattr(vocab, "_has_checksum", lambda *_: True)
    (tmp_path / "file").write_text("in the way")

    said = extproc("vocab", tmp_path / "file" / "v")

    assert said.code == 2
    assert str(tmp_path / "file" / "v") in said.err
    assert "EXTPROC_VOCAB" in said.err


def test_vocab_as_json_is_nothing_but_json() -> None:
    """Skipped where the vocabularies were never fetched: this is about the output alone."""
    folder = vocab.default_directory(os.environ)
    if vocab._missing(folder):
        pytest.skip("`extproc vocab` has not run on this machine")

    said = extproc("vocab", "--json", folder)

    assert said.code == 0
    assert said.json == {"ok": True, "folder": str(folder)}


# --- serve that does not start


def test_serve_without_policies_says_what_is_missing() -> None:
    said = serve()

    assert said.code == 2
    assert "--policies" in said.err
    assert "EXTPROC_POLICIES" in said.err


def test_serve_of_a_bad_folder_prints_every_problem_and_ends_with_2(broken: Path) -> None:
    said, checked = (
        serve("--policies", broken, "--admin-port", "0", "--grpc", "127.0.0.1:0"),
        extproc("check", broken),
    )

    assert said.code == 2
    assert said.out == ""
    assert [line for line in checked.err.splitlines() if line not in said.err.splitlines()] == []


def test_serve_on_an_admin_port_in_use_says_which(good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = serve("--policies", good, "--admin-port", str(port), "--grpc", "127.0.0.1:0")

    assert said.code == 2
    assert f"127.0.0.1:{port}" in said.err
    assert "EXTPROC_ADMIN_PORT" in said.err


def test_serve_on_a_grpc_port_in_use_says_which(good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = serve("--policies", good, "--admin-port", "0", "--grpc", f"127.0.0.1:{port}")

    assert said.code == 2
    assert f"cannot listen for gRPC on 127.0.0.1:{port}" in said.err
    assert "EXTPROC_GRPC" in said.err


UNUSABLE: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "a trace that a browser would run": (
        ["--trace-url", "javascript:alert(1)//{trace_id}"],
        ("--trace-url", "EXTPROC_TRACE_URL", "{trace_id}"),
    ),
    "a metrics port that is none": (["--metrics-port", "-1"], ("--metrics-port", "EXTPROC_METRICS_PORT")),
    "an admin port that is none": (["--admin-port", "70000"], ("--admin-port", "EXTPROC_ADMIN_PORT")),
    "an address that is none": (["--grpc", "nowhere"], ("--grpc", "EXTPROC_GRPC")),
    "a socket in a folder that cannot be": (["--grpc", "unix:/proc/nowhere/a.sock"], ("/proc/nowhere",)),
    "a certificate that is not there": (
        ["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"],
        ("--tls-key", "EXTPROC_TLS_KEY", "/nowhere.key"),
    ),
    "a certificate that is none": (
        ["--tls-cert", __file__, "--tls-key", __file__],
        ("--tls-cert", "--tls-key", "PEM"),
    ),
    "a store that is none": (
        ["--store", f"mysql://u:{TOKEN}@h"],
        ("--store", "EXTPROC_STORE", "redis://"),
    ),
    "a ledger that is none": (
        ["--ledger", f"mysql://u:{TOKEN}@h"],
        ("--ledger", "EXTPROC_LEDGER", "sqlite:PATH"),
    ),
    "a public admin port without a token": (["--admin-host", "0.0.0.0"], ("EXTPROC_ADMIN_TOKEN",)),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_serve_with_a_setting_that_cannot_be_used_names_it_and_ends_with_2(good: Path, name: str) -> None:
    arguments, named = UNUSABLE[name]

    said = serve("--policies", good, "--admin-port", "0", "--grpc", "127.0.0.1:0", *arguments)

    assert said.code == 2
    assert [word for word in named if word not in said.err] == []
    assert TOKEN not in said.err


# --- serve that does


@contextmanager
def serving(folder: Path, tmp_path: Path, **extra: str) -> Iterator[tuple[child.Child, int, int]]:
    """A sidecar with its gRPC and admin ports."""
    grpc_port, admin_port = free_ports(2)
    command = [sys.executable, "-m", "extproc", "serve", "--policies", str(folder)]
    command += ["--grpc", f"127.0.0.1:{grpc_port}", "--admin-port", str(admin_port)]
    process = child.start(
        "sidecar", command, log=tmp_path / "serve.log", environment=environment(**extra), folder=ROOT
    )
    try:
        child.wait_until(
            lambda: child.get("127.0.0.1", admin_port, "/readyz")[0] == 200,
            what="the sidecar",
            children=[process],
            timeout_s=30,
        )
        yield process, grpc_port, admin_port
    finally:
        process.stop(grace_s=10)


def records(process: child.Child) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines()]


def ask(port: int, *answer: pb.ProcessingRequest) -> list[pb.ProcessingResponse]:
    """What Envoy would send of one allowed request, and of its answer."""
    pairs = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "gateway"))
    head = pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in pairs])
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]})
    messages = [
        pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=head)),
        pb.ProcessingRequest(request_body=pb.HttpBody(body=body.encode(), end_of_stream=True)),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        process = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        return list(process(iter([*messages, *answer]), timeout=30))


def test_serve_without_vocabularies_says_so_and_marks_what_it_estimates(good: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with OtlpReceiver() as receiver:
        otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with serving(good, tmp_path, EXTPROC_VOCAB=str(empty), **otlp) as (process, grpc_port, admin_port):
            _, ready = child.get("127.0.0.1", admin_port, "/readyz")
            answers = ask(grpc_port)
            spans = receiver.wait_for(lambda seen: any(span.name == "ai_policy.decide" for span in seen))
        said = records(process)

    (notice,) = [each for each in json.loads(ready)["notices"] if "vocab" in each]
    assert json.loads(ready)["ready"] is True
    assert str(empty) in notice
    assert "extproc vocab" in notice
    assert [r["notice"] for r in said if r["message"] == "vocabulary missing"] == [notice]
    assert [answer.WhichOneof("response") for answer in answers] == ["request_headers", "request_body"]
    (decide,) = [span for span in spans if span.name == "ai_policy.decide"]
    assert decide.attributes["ai_policy.tokens.estimator"] == "bytes"
    assert decide.attributes["ai_policy.tokens.estimated_input"] > 0


def test_serve_logs_json_alone_and_no_secret_and_ends_cleanly_when_told(good: Path, tmp_path: Path) -> None:
    (probes,) = free_ports(1)
    with serving(good, tmp_path, EXTPROC_ADMIN_TOKEN=TOKEN, EXTPROC_METRICS_PORT=str(probes)) as (
        process,
        grpc_port,
        admin_port,
    ):
        ask(grpc_port)
        assert child.get("127.0.0.1", probes, "/metrics")[0] == 200
        child.get("127.0.0.1", admin_port, "/policies?key=canary-in-a-query")
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(30) == 0

    said = records(process)
    (started,) = [record for record in said if record["message"] == "serving"]
    assert started["grpc"] == f"127.0.0.1:{grpc_port}"
    assert started["admin"] == f"127.0.0.1:{admin_port}"
    assert "stopping" in [record["message"] for record in said]
    assert TOKEN not in process.log.read_text()
    assert "canary" not in process.log.read_text()


def answered(usage: dict[str, int]) -> tuple[pb.ProcessingRequest, ...]:
    pairs = ((":status", "200"), ("content-type", "application/json"))
    head = pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in pairs])
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}
    body = json.dumps({"model": "gpt-4o-mini", "choices": [choice], "usage": usage}).encode()
    return (
        pb.ProcessingRequest(response_headers=pb.HttpHeaders(headers=head)),
        pb.ProcessingRequest(response_body=pb.HttpBody(body=body, end_of_stream=True)),
    )


def test_serve_keeps_what_it_learned_in_its_state_folder(good: Path, tmp_path: Path) -> None:
    answer = answered({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
    # No vocabularies: every count is an estimate, and estimates are what is corrected.
    settings = {"EXTPROC_STATE": str(tmp_path / "state"), "EXTPROC_VOCAB": str(tmp_path)}

    # The second is what a terminal that closes sends, or who hopes for a reload.
    for told_to_end in (signal.SIGTERM, signal.SIGHUP):
        with serving(good, tmp_path, **settings) as (process, grpc_port, _):
            ask(grpc_port, *answer)
            process.process.send_signal(told_to_end)
            assert process.process.wait(30) == 0

    learned = json.loads((tmp_path / "state" / "learned.json").read_text())
    assert learned["outputs"] == [["openai", "gpt-4o-mini", [3, 3]]]
    assert [row[:5] for row in learned["estimates"]] == [["openai", "gpt-4o-mini", "chat", False, "bytes"]]
