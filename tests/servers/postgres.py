"""A real Postgres for tests: its own process, port and folder; it can be killed, paused and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from psycopg import sql

from tests.servers.process import ServerProcess

PASSWORD = "sEcr3t-of-the-ledger"
_INSTALLED = Path("/usr/lib/postgresql")
_UNSAFE_AND_FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "30"}


class PostgresServer(ServerProcess):
    """One `postgres`, with a password."""

    patience_s = 30.0

    def __init__(self) -> None:
        self._programs = _programs()
        # Postgres refuses to run as root.
        is_root = os.geteuid() == 0
        self._user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if is_root else {}
        )
        super().__init__("postgres")
        self._data = self._folder / "data"

    def __enter__(self) -> Self:
        self._make()
        return super().__enter__()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty place for tables, gone afterwards: a schema, made faster than a database."""
        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        yield f"{self.url}?options=-csearch_path%3D{name}"
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"postgresql://ledger:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, with what is on disk, and wait until it answers."""
        settings = [part for name, value in _UNSAFE_AND_FAST.items() for part in ("-c", f"{name}={value}")]
        command = (self._programs / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1")
        self._run([*command, "-k", "", *settings], **self._user)

    def kill(self) -> None:
        """Kill it with SIGKILL, paused or not, and wait until all its processes are gone."""
        if self._process is None:
            return
        children = self._children()
        for pid in (self._process.pid, *children):
            _signal(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # Shared memory is free once the last of them has gone.
        while any(_is_alive(pid) for pid in children):
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self._children()):
            _signal(pid, number)

    def _children(self) -> list[int]:
        """The server's processes: each has a session of its own, so that no group holds them all."""
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()] if tasks.exists() else []

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        for path in (self._folder, password):
            if self._user:
                shutil.chown(path, "postgres", "postgres")
        made = subprocess.run(
            [
                *(self._programs / "initdb", "-D", self._data, "-U", "ledger", f"--pwfile={password}"),
                *("-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            **self._user,
        )
        if made.returncode:
            raise RuntimeError(made.stderr)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _programs() -> Path:
    found = shutil.which("postgres")
    if found:
        return Path(found).parent
    versions = sorted(_INSTALLED.glob("*/bin/postgres"))
    if not versions:
        pytest.skip("postgres is not installed (Debian: apt-get install postgresql)")
    return versions[-1].parent


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    """Whether it still runs; one that nobody has taken notice of yet, a zombie, does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
