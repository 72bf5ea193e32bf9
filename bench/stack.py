"""The processes of a benchmark: one demo provider, and for each row an Envoy and its sidecar.

All of them run all the time; one that nobody asks does next to nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from bench.errors import BenchFailed
from bench.load import HOST, OK
from bench.rows import FILTER, ROWS, Row, Sidecar, bootstrap, out_of_reach
from demo import child
from demo.child import Child
from extproc.envoy_config import EnvoySettings
from extproc.policy import policyset

ROOT = Path(__file__).parent.parent
START_S = 60.0

# A setting of the person at the keyboard must not change what is measured.
_NOT_INHERITED = ("EXTPROC_", "OTEL_", "DEMO_")
_INHERITED = frozenset({"EXTPROC_VOCAB"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One row that runs."""

    row: Row
    port: int
    admin_port: int
    groups: Mapping[str, int]  # "provider", "envoy" and, where there is one, "sidecar"

    def messages(self) -> int:
        """How many messages Envoy has sent to its sidecar so far."""
        path = f"/stats?format=json&filter={FILTER}.stream_msgs_sent$"
        status, body = child.get(HOST, self.admin_port, path)
        if status != OK:
            raise BenchFailed(f"Envoy's admin answered {status}")
        return sum(stat.get("value", 0) for stat in json.loads(body)["stats"])


@contextmanager
def lanes() -> Iterator[tuple[Lane, ...]]:
    """Start everything, and end it with the block.

    Raises:
        ChildDied, NotReady: a process did not come up; the text holds its last lines.

    """
    with TemporaryDirectory(prefix="bench-") as folder, ExitStack() as running:
        starter = Starter(Path(folder), running)
        starter.write_policies()
        demo_port = free_port()
        demo = starter.start("provider", [sys.executable, "-m", "demo.provider", "--port", str(demo_port)])
        started = [starter.lane(number, row, demo, demo_port) for number, row in enumerate(ROWS)]
        starter.await_answer(demo_port, "/healthz", demo)
        yield tuple(started)


class Starter:
    """Starts the processes of one benchmark in a folder; they end with the stack given."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self._folder = folder
        self._running = running
        self._policies = folder / "policies"
        self._environment = {
            name: text
            for name, text in os.environ.items()
            if name in _INHERITED or not name.startswith(_NOT_INHERITED)
        }

    def write_policies(self) -> None:
        """Copy the sample policies, with limits out of reach."""
        shutil.copytree(ROOT / "policies", self._policies)
        for path in self._policies.glob("*.yaml"):
            path.write_text(out_of_reach(path.read_text()))

    def start(
        self, name: str, command: list[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> Child:
        """Start a process that ends with the block."""
        log = self._folder / f"{name}.log"
        whole = self._environment | dict(environment)
        started = child.start(name, command, log=log, environment=whole, folder=ROOT)
        self._running.callback(started.stop, grace_s=5)
        return started

    def await_answer(self, port: int, path: str, process: Child) -> None:
        """Return once it answers."""
        child.wait_until(
            lambda: child.get(HOST, port, path)[0] == OK,
            what=process.name,
            children=[process],
            timeout_s=START_S,
        )

    def lane(
        self,
        number: int,
        row: Row,
        demo: Child,
        demo_port: int,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Lane:
        """Start one row's sidecar and Envoy; both are ready when this returns."""
        grpc = f"unix:{self._folder}/{number}.sock"
        groups = {"provider": demo.process.pid}
        if row.sidecar is not Sidecar.NOBODY:
            groups["sidecar"] = self._sidecar(number, row, grpc, environment).process.pid
        port, admin_port = free_port(), free_port()
        settings = EnvoySettings(
            gateway_port=port,
            admin_port=admin_port,
            policy_endpoints=(grpc,),
            body_limit_bytes=policyset.load(self._policies).defaults.max_body_bytes,
            usage=row.usage,
            demo_provider=f"{HOST}:{demo_port}",
            # Entries are written in full, to where no disk slows them down.
            access_log_path=os.devnull,
        )
        config = self._folder / f"envoy-{number}.yaml"
        config.write_text(bootstrap(row, settings))
        command = [str(child.envoy_binary()), "-c", str(config), "--disable-hot-restart"]
        command += ["--log-level", "warning", "--component-log-level", "misc:error"]
        envoy = self.start(f"envoy-{number}", command)
        self.await_answer(admin_port, "/ready", envoy)
        return Lane(row=row, port=port, admin_port=admin_port, groups=groups | {"envoy": envoy.process.pid})

    def _sidecar(self, number: int, row: Row, grpc: str, environment: Mapping[str, str]) -> Child:
        name = f"sidecar-{number}"
        if row.sidecar is Sidecar.EMPTY:
            started = self.start(name, [sys.executable, "-m", "bench.empty", grpc])
            path = Path(grpc.removeprefix("unix:"))
            child.wait_until(path.is_socket, what=name, children=[started], timeout_s=START_S)
            return started
        admin_port = free_port()
        command = [sys.executable, "-m", "extproc", "serve", "--policies", str(self._policies)]
        command += ["--grpc", grpc, "--admin-port", str(admin_port), "--usage", row.usage]
        started = self.start(name, command, environment)
        self.await_answer(admin_port, "/readyz", started)
        return started


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
