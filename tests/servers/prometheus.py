"""A real Prometheus for tests: its own process, port and folder."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.servers.process import ServerProcess


def program(name: str) -> str:
    """`prometheus` or `promtool`, as Debian installs both."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


class PrometheusServer(ServerProcess):
    """One `prometheus` that scrapes as this configuration says."""

    patience_s = 30.0

    def __init__(self, configuration: Path) -> None:
        self._program = program("prometheus")
        self._configuration = configuration
        super().__init__("prometheus")

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._run(
            [
                *(self._program, f"--config.file={self._configuration}", "--log.level=warn"),
                *(f"--web.listen-address=127.0.0.1:{self.port}", f"--storage.tsdb.path={self._folder}/data"),
            ]
        )

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query; an expression that does not evaluate is an assertion's failure."""
        status, answer = self._ask("/api/v1/query?" + urlencode({"query": expression}))
        assert (status, answer["status"]) == (200, "success"), f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """The series of a query, once there are any."""
        end = time.monotonic() + self.patience_s
        while not (found := self.query(expression)):
            assert time.monotonic() < end, f"never was there any {expression}: {self.targets()}"
            time.sleep(0.05)
        return found

    def targets(self) -> dict[str, str]:
        """What is scraped, by job: empty, or what went wrong the last time."""
        _, answer = self._ask("/api/v1/targets")
        return {each["labels"]["job"]: each["lastError"] for each in answer["data"]["activeTargets"]}

    def _answers(self) -> bool:
        try:
            return self._ask("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _ask(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            is_json = "json" in answer.headers.get("content-type", "")
            return answer.status, json.loads(body) if is_json else body
        finally:
            connection.close()
