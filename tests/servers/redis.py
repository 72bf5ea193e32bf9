"""A real Redis for tests: its own process, port and folder; it can be killed, paused and started again."""

from __future__ import annotations

import shutil
import signal
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.process import ServerProcess

BINARY = "redis-server"


class RedisServer(ServerProcess):
    """One `redis-server`.

    Without `is_durable` nothing is written to disk: a restart is a loss of all data.
    """

    patience_s = 10.0

    def __init__(self, *arguments: str, is_durable: bool = False) -> None:
        if shutil.which(BINARY) is None:
            pytest.skip(f"{BINARY} is not installed (Debian: apt-get install redis-server)")
        super().__init__("redis")
        durability = ("--appendonly", "yes", "--appendfsync", "always") if is_durable else ()
        self._command = [
            *(BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--save", "", "--loglevel", "warning", *durability, *arguments),
        ]

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
        self._run(self._command)

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
