"""A real Redis for tests: its own process, port and folder; it can be killed, paused and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.e2e.gateway import free_ports

BINARY = "redis-server"
_START_S = 10.0


class RedisServer:
    """One `redis-server` on loopback; a context manager that starts it and leaves nothing behind.

    Without `is_durable` nothing is written to disk: a restart is a loss of all data.
    """

    def __init__(self, *arguments: str, is_durable: bool = False) -> None:
        if shutil.which(BINARY) is None:
            pytest.skip(f"{BINARY} is not installed (Debian: apt-get install redis-server)")
        self.port = free_ports(1)[0]
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        durability = ("--appendonly", "yes", "--appendfsync", "always") if is_durable else ()
        self._command = [
            *(BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--loglevel", "warning", *durability, *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """A blocking client, for a test's own questions; close it."""
        never = Retry(NoBackoff(), 0)
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, retry=never, **options)

    def start(self) -> None:
        """Start it, with what is on disk, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it with SIGKILL, paused or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was paused."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        client = self.client()
        try:
            client.ping()
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()
        return True
