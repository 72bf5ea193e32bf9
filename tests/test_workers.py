"""Several workers under one supervisor: real processes, a real Redis, a real Envoy."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from starlette.testclient import TestClient

from demo import child
from extproc.console import templates
from extproc.envoy_config import EnvoySettings, render_bootstrap
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.settings import Settings, WorkerPlace, worker_addresses
from extproc.workers import Supervisor
from extproc.workers import supervisor as supervisor_module
from extproc.workers.admin import WorkersAdmin
from extproc.workers.worker import Answer, Worker
from tests.e2e import stand_ins
from tests.e2e.gateway import Gateway, free_ports, gateway
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parent.parent
OPEN = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
"""
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}).encode()
TOKEN = "token-of-an-operator"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """A supervisor with its workers."""

    process: child.Child
    admin_port: int
    grpc: str
    policies: Path

    @property
    def endpoints(self) -> tuple[str, ...]:
        return worker_addresses(self.grpc, 2)

    def ask(self, path: str, method: str = "GET", /, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            is_json = answer.getheader("content-type") == "application/json"
            return answer.status, json.loads(body) if is_json else body.decode()
        except OSError:
            return 0, None
        finally:
            connection.close()

    def post(self, path: str, **headers: str) -> tuple[int, Any]:
        trusted = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        return self.ask(path, "POST", **trusted, **headers)

    def lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("/readyz")[1]["workers"]
        return found

    def pids(self) -> list[int]:
        return [line["pid"] for line in self.lines()]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels."""
        total = 0.0
        for line in self.ask("/metrics")[1].splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if (
                match
                and match[1] == name
                and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items())
            ):
                total += float(match[3])
        return total

    def wait(self, is_so: Any, what: str) -> None:
        child.wait_until(is_so, what=what, children=[self.process], timeout_s=PATIENCE_S)

    def wait_until_all_serve(self) -> None:
        def serve() -> bool:
            status, body = self.ask("/readyz")
            return status == 200 and all(line["ready"] for line in body["workers"])

        self.wait(serve, "every worker")


def environment(**extra: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EXTPROC_", "OTEL_"))}
    return own | extra


@contextmanager
def supervised(folder: Path, redis: RedisServer, grpc_address: str = "") -> Iterator[Workers]:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "all.yaml").write_text(OPEN)
    address = grpc_address or f"unix:{folder}/x.sock"
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "extproc", "serve", "--policies", str(policies), "--grpc", address]
    command += ["--admin-port", str(port), "--workers", "2", "--drain-s", "20"]
    process = child.start(
        "supervisor",
        command,
        log=folder / "serve.log",
        environment=environment(EXTPROC_STORE=redis.url, EXTPROC_ADMIN_TOKEN=TOKEN),
        folder=ROOT,
    )
    running = Workers(process=process, admin_port=port, grpc=address, policies=policies)
    try:
        running.wait_until_all_serve()
        yield running
    finally:
        process.stop(grace_s=10)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def workers(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with supervised(tmp_path_factory.mktemp("workers"), redis) as running:
        yield running


@contextmanager
def stream(address: str) -> Iterator[Any]:
    """One request as Envoy would open it: its head is sent, and answered."""
    pairs = ((":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "gateway"))
    head = pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in pairs])
    more = threading.Event()

    def messages() -> Iterator[pb.ProcessingRequest]:
        yield pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=head))
        more.wait(PATIENCE_S)
        yield pb.ProcessingRequest(request_body=pb.HttpBody(body=BODY, end_of_stream=True))

    with grpc.insecure_channel(address) as channel:
        process = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        answers: Any = process(messages(), timeout=PATIENCE_S)
        next(answers)

        def rest() -> list[pb.ProcessingResponse]:
            more.set()
            return list(answers)

        yield rest


def decide(address: str, count: int) -> None:
    for _ in range(count):
        with stream(address) as rest:
            assert len(rest()) == 1


# --- one admin port for all


def test_every_worker_has_an_endpoint_of_its_own_and_metrics_are_their_sum(workers: Workers) -> None:
    before = workers.metric("ai_policy_decisions_total")
    timed = workers.metric("ai_policy_decision_duration_seconds_count")
    for count, address in zip((2, 3), workers.endpoints, strict=True):
        decide(address, count)

    assert workers.metric("ai_policy_decisions_total") == before + 5
    assert workers.metric("ai_policy_decision_duration_seconds_count") == timed + 5
    assert [workers.metric("ai_policy_streams_active", worker=number) for number in ("0", "1")] == [0, 0]
    assert workers.metric("target_info") == 2, "each names its instance"


def test_readyz_lists_every_worker(workers: Workers) -> None:
    status, ready = workers.ask("/readyz")

    assert status == 200
    assert ready["ready"] is True
    assert [line["worker"] for line in ready["workers"]] == [0, 1]
    assert [line["endpoint"] for line in ready["workers"]] == list(workers.endpoints)
    assert len({line["pid"] for line in ready["workers"]}) == 2
    assert {line["revision"] for line in ready["workers"]} == {ready["revision"]}


def test_what_only_workers_know_is_asked_of_one(workers: Workers) -> None:
    status, said = workers.ask("/policies")

    assert status == 200
    assert said["revision"] == workers.ask("/readyz")[1]["revision"]
    assert [each["kind"] for each in said["objects"]] == ["Defaults"]
    assert workers.ask("/nowhere")[0] == 404
    status, page = workers.ask("/")
    assert status == 200
    assert "This is worker-0" in page


def test_an_edit_reaches_every_worker(workers: Workers) -> None:
    before = workers.ask("/readyz")[1]["revision"]
    (workers.policies / "all.yaml").write_text(OPEN.replace("main", "edited"))
    workers.wait(
        lambda: before not in {line["revision"] for line in workers.lines()}, "the edit in every worker"
    )
    status, ready = workers.ask("/readyz")

    assert status == 200
    assert len({line["revision"] for line in ready["workers"]}) == 1
    assert ready["notices"] == [each for each in ready["notices"] if "revision" not in each]


# --- restarts


def test_a_killed_worker_is_replaced_and_counted_and_no_sum_falls(workers: Workers) -> None:
    decide(workers.endpoints[0], 2)
    total = workers.metric("ai_policy_decisions_total")
    crashed = workers.metric("ai_policy_worker_restarts_total", worker="0", reason="crashed")
    victim, other = workers.pids()
    os.kill(victim, signal.SIGKILL)
    workers.wait(lambda: workers.lines()[0]["pid"] != victim, "another process")
    decide(workers.endpoints[1], 1)
    workers.wait_until_all_serve()
    decide(workers.endpoints[0], 1)

    assert workers.pids()[1] == other
    assert workers.metric("ai_policy_decisions_total") == total + 2
    assert workers.metric("ai_policy_worker_restarts_total", worker="0", reason="crashed") == crashed + 1


def test_no_worker_is_restarted_into_a_policy_folder_that_does_not_load(workers: Workers) -> None:
    pids = workers.pids()
    broken = workers.policies / "zz.yaml"
    broken.write_text("kind: Nothing\n")
    try:
        status, said = workers.post("/workers/0/restart")
    finally:
        broken.unlink()

    assert status == 409
    assert "zz.yaml:1:1" in said["error"]
    assert workers.pids() == pids


def test_a_restart_is_for_those_who_may_ask_for_it(workers: Workers) -> None:
    pids = workers.pids()

    assert workers.post("/workers/2/restart")[0] == 404
    assert workers.post("/workers/0/restart", origin="http://elsewhere.example")[0] == 403
    assert workers.ask("/workers/0/restart", "POST")[0] in (401, 403, 415)
    assert workers.pids() == pids


@dataclass
class Load:
    """Callers that ask one thing after another through Envoy."""

    port: int
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"content-type": "application/json"}
        while not self._done.is_set():
            try:
                connection.request("POST", "/v1/chat/completions", BODY, headers)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            self.answered += 1
            time.sleep(0.01)  # leaves the machine to the workers that start
            if answer.status != 200:
                self.failed.append(f"{answer.status} {said.decode()}")
        connection.close()


@contextmanager
def in_front_of(workers: Workers, folder: Path) -> Iterator[Gateway]:
    """Envoy between callers and a provider; it looks at the workers' health often."""
    port, admin_port = free_ports(2)
    with stand_ins.provider() as provider:
        text = render_bootstrap(
            EnvoySettings(
                gateway_port=port,
                admin_port=admin_port,
                policy_endpoints=workers.endpoints,
                demo_provider=f"127.0.0.1:{provider.port}",
                access_log_path=str(folder / "access.log"),
                usage="stream",
            )
        )
        text = text.replace("interval: 2s", "interval: 0.5s")
        with gateway(text, port=port, admin_port=admin_port, folder=folder) as envoy:
            child.wait_until(
                lambda: envoy.stats("cluster.ai_policy.membership_healthy").popitem()[1] == 2,
                what="two workers that Envoy finds healthy",
                children=[envoy.process],
                timeout_s=PATIENCE_S,
            )
            yield envoy


def test_all_workers_are_restarted_under_load_without_a_failed_request(
    workers: Workers, tmp_path: Path
) -> None:
    """One after another; and what the ended ones had counted stays in the sums."""
    before = workers.metric("ai_policy_decisions_total")
    asked = workers.metric("ai_policy_worker_restarts_total", reason="asked")
    pids = workers.pids()
    with in_front_of(workers, tmp_path) as envoy:
        load = Load(port=envoy.port)
        load.start()
        try:
            workers.process.process.send_signal(signal.SIGHUP)
            workers.wait(
                lambda: workers.metric("ai_policy_worker_restarts_total", reason="asked") == asked + 2,
                "the restart of the last worker",
            )
            workers.wait_until_all_serve()
        finally:
            load.stop()

    assert load.failed == []
    assert load.answered > 100
    assert set(workers.pids()).isdisjoint(pids)
    assert workers.metric("ai_policy_decisions_total") == before + load.answered


def test_one_worker_is_restarted_when_asked_for(workers: Workers) -> None:
    first, second = workers.pids()
    # Where all are being restarted, it is told to come back later.
    workers.wait(lambda: workers.post("/workers/1/restart")[0] == 202, "a restart that begins")
    workers.wait(lambda: workers.pids()[1] not in (second, None), "another process")
    workers.wait_until_all_serve()

    assert workers.pids()[0] == first
    assert workers.lines()[1]["restarts"] > 0


# --- the end


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_stop_lets_open_streams_end_and_a_second_signal_changes_nothing(
    redis: RedisServer, tmp_path: Path
) -> None:
    with supervised(tmp_path, redis) as workers:
        pids = workers.pids()
        with stream(workers.endpoints[1]) as rest:
            for _ in range(2):
                workers.process.process.send_signal(signal.SIGTERM)
                workers.wait(lambda: is_gone(pids[0]), "the end of the idle worker")
            assert not is_gone(pids[1])
            answers = rest()
        code = workers.process.process.wait(PATIENCE_S)

    assert len(answers) == 1
    assert code == 0
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert "Traceback" not in workers.process.log.read_text()


def test_workers_do_not_outlive_a_supervisor_that_was_killed(redis: RedisServer, tmp_path: Path) -> None:
    with supervised(tmp_path, redis, f"127.0.0.1:{neighbours()}") as workers:
        pids = workers.pids()
        decide(workers.endpoints[1], 1)
        os.kill(workers.process.process.pid, signal.SIGKILL)
        child.wait_until(
            lambda: all(is_gone(pid) for pid in pids), what="their end", children=[], timeout_s=PATIENCE_S
        )


def neighbours() -> int:
    """A free port whose next one is free too."""
    while True:
        (port,) = free_ports(1)
        if child.is_port_free("127.0.0.1", port + 1):
            return port


# --- what cannot be served


def refused(*arguments: str, **extra: str) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "extproc", "serve", "--workers", "2", "--admin-port", "0", *arguments],
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert said.returncode == 2, said.stderr
    assert "Traceback" not in said.stderr
    return said.stderr


def test_workers_that_could_not_share_counters_are_refused_with_what_to_set(tmp_path: Path) -> None:
    said = refused("--policies", str(tmp_path))

    for word in ("--workers", "EXTPROC_WORKERS", "memory:", "--store", "EXTPROC_STORE", "redis://"):
        assert word in said


def test_a_policy_folder_that_does_not_load_is_said_once_and_ends_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Nothing\n")
    said = refused(
        *("--policies", str(tmp_path), "--grpc", f"unix:{tmp_path}/x.sock"),
        EXTPROC_STORE="redis://:canary-of-a-password@127.0.0.1:1",
    )

    assert said.count("the policy folder cannot be used") == 1
    assert "a.yaml:1:1" in said
    assert "canary" not in said


# --- workers that misbehave: scripts in their place

# It answers its supervisor, and ends only when it is killed.
STUBBORN = """
import json, pathlib, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
number, folder = sys.argv[-3], pathlib.Path(sys.argv[-1])
listener = socket.socket(socket.AF_UNIX)
(folder / f"worker-{number}.sock").unlink(missing_ok=True)
listener.bind(str(folder / f"worker-{number}.sock"))
listener.listen()
body = json.dumps({"ready": True, "revision": "r"}).encode()
while True:
    connection, _ = listener.accept()
    if b"/readyz" in connection.recv(4096):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
    connection.close()
"""
# It ends when it is told to; nobody can take its place a second time.
ONCE = STUBBORN.replace("SIG_IGN", "SIG_DFL").replace(
    "number, folder", "import os; os.mkdir(sys.argv[-1] + '/once-' + sys.argv[-3])\nnumber, folder", 1
)


def scripted(folder: Path, script: str) -> Supervisor:
    (folder / "a.yaml").write_text(OPEN)
    settings = Settings(
        policies=folder,
        grpc=f"unix:{folder}/x.sock",
        admin_port=0,
        workers=2,
        store="redis://h",
        drain_s=0.0,
    )
    return Supervisor(settings, [sys.executable, "-S", "-c", script])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  it is in other processes
            await asyncio.sleep(0.02)


async def test_a_worker_that_does_not_start_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    supervisor = scripted(tmp_path, "import sys; sys.exit(2)")

    assert await supervisor.run() == 2


def test_a_body_that_no_worker_would_read_is_not_taken_in(tmp_path: Path) -> None:
    """Who may only read needs no token on loopback, and may send a body without end all the same."""
    settings = Settings(policies=tmp_path, admin_port=0)
    supervisor = Supervisor(settings, [])
    worker = Worker(WorkerPlace(number=0, folder=tmp_path), "unix:x.sock", [])
    worker.is_serving = True
    supervisor.workers = (worker,)
    with TestClient(WorkersAdmin(settings, supervisor).app, base_url="http://localhost") as client:
        answer = client.request("GET", "/policies", content=bytes(100_000))

    assert answer.status_code == 413


def test_what_keeps_a_page_harmless_comes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(policies=tmp_path, admin_port=0)
    supervisor = Supervisor(settings, [])
    worker = Worker(WorkerPlace(number=0, folder=tmp_path), "unix:x.sock", [])
    worker.is_serving = True
    supervisor.workers = (worker,)
    style = templates.style()

    async def ask(*_: object, **__: object) -> Answer:
        return Answer(status=200, headers=dict(style.headers), body=bytes(style.body))

    monkeypatch.setattr(worker, "ask", ask)
    with TestClient(WorkersAdmin(settings, supervisor).app, base_url="http://localhost") as client:
        answer = client.get("/console/console.css")

    assert dict(answer.headers) == dict(style.headers)


async def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_AFTER_DRAIN_S", 0.1)
    supervisor = scripted(tmp_path, STUBBORN)
    running = asyncio.ensure_future(supervisor.run())
    await until(lambda: supervisor.is_up)
    pids = [each.pid for each in supervisor.workers]
    os.kill(os.getpid(), signal.SIGTERM)

    assert await running == 0
    assert [pid for pid in pids if pid is None or not is_gone(pid)] == []


async def test_a_restart_ends_at_the_first_worker_that_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others serve on, and the empty place is tried again and again."""
    monkeypatch.setattr(supervisor_module, "_BACK_S", 0.5)
    supervisor = scripted(tmp_path, ONCE)
    running = asyncio.ensure_future(supervisor.run())
    await until(lambda: supervisor.is_up)
    first, second = supervisor.workers
    serving = second.pid
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: supervisor.is_restarting)
    await until(lambda: not supervisor.is_restarting and first.crashes > 1)

    assert not first.is_serving
    assert (second.is_serving, second.pid) == (True, serving)
    assert await supervisor.obstacle(second) == "no other worker serves"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
