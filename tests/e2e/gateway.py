"""One real Envoy process for a test, and what it writes and says."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo import child
from tests.e2e import binaries

_GIVEN_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Above what this project and its neighbours listen on by default.
_FIRST_PORT = 12_000


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now, and that no connection is given.

    Those that the system gives away are for connections too: one may take a port before its server does.
    """
    first_given = max(int(_GIVEN_PORTS.read_text().split()[0]), _FIRST_PORT + 1_000)
    with ExitStack() as held:
        return [_hold_one(held, first_given) for _ in range(count)]


def _hold_one(held: ExitStack, below: int) -> int:
    while True:
        port = random.randrange(_FIRST_PORT, below)
        held_socket = socket.socket()
        try:
            held_socket.bind(("127.0.0.1", port))
        except OSError:
            held_socket.close()
            continue
        held.enter_context(held_socket)
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running Envoy."""

    process: child.Child
    port: int
    admin_port: int
    folder: Path  # holds envoy.yaml, envoy.log and access.log

    @property
    def url(self) -> str:
        """Where callers connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """Envoy's own admin interface."""
        return f"http://127.0.0.1:{self.admin_port}"

    def stats(self, prefix: str = "") -> dict[str, int]:
        """Counters and gauges whose name starts with `prefix`."""
        status, body = child.get("127.0.0.1", self.admin_port, "/stats?format=json")
        assert status == 200, f"Envoy's admin answered {status}"
        found = (stat for stat in json.loads(body)["stats"] if "name" in stat)
        return {stat["name"]: stat["value"] for stat in found if stat["name"].startswith(prefix)}

    def access_log(self, count: int = 1) -> list[dict[str, object]]:
        """Every entry so far, once there are at least `count`: Envoy writes after the last byte."""
        path = self.folder / "access.log"

        def lines() -> list[str]:
            return path.read_text().splitlines() if path.exists() else []

        child.wait_until(
            lambda: len(lines()) >= count,
            what=f"entry {count} of the access log",
            children=[self.process],
            timeout_s=15,
        )
        return [json.loads(line) for line in lines()]


def start_envoy(bootstrap: str, *, port: int, admin_port: int, folder: Path, version: str) -> Gateway:
    """Start Envoy on this bootstrap; it is ready when this returns."""
    config = folder / "envoy.yaml"
    config.write_text(bootstrap)
    process = child.start(
        f"Envoy {version}",
        [str(binaries.envoy(version)), "-c", str(config), *OPTIONS],
        log=folder / "envoy.log",
        environment=os.environ,
        folder=folder,
    )
    started = Gateway(process=process, port=port, admin_port=admin_port, folder=folder)
    try:
        child.wait_until(
            lambda: child.get("127.0.0.1", admin_port, "/ready")[0] == 200,
            what=f"Envoy {version}",
            children=[process],
            timeout_s=15,
        )
    except BaseException:
        process.stop(grace_s=0)
        raise
    return started


# One worker is enough for a test; the access log must not wait for its buffer.
OPTIONS = (
    "--concurrency",
    "1",
    "--disable-hot-restart",
    "--log-level",
    "warning",
    "--component-log-level",
    "misc:error",  # says at every start that native usage is work in progress
    "--file-flush-interval-msec",
    "50",
)


@contextmanager
def gateway(
    bootstrap: str, *, port: int, admin_port: int, folder: Path, version: str = binaries.NEWEST
) -> Iterator[Gateway]:
    """Run Envoy on this bootstrap for as long as the block lasts."""
    started = start_envoy(bootstrap, port=port, admin_port=admin_port, folder=folder, version=version)
    try:
        yield started
    finally:
        started.process.stop(grace_s=2)
