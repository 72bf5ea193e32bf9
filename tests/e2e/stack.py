"""The whole product as real processes: demo provider, sidecar, Envoy. One `with` block each."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo import child
from demo.child import Child
from extproc.envoy_config import EnvoySettings, FilterSettings, UsageMode, render_bootstrap, render_filter
from extproc.policy import policyset
from tests.e2e import binaries
from tests.e2e.gateway import Gateway, free_ports, start_envoy
from tests.e2e.portable import render_portable_bootstrap

ROOT = Path(__file__).parents[2]
START_S = 30.0  # patience on a busy machine; a start takes about two seconds


class Stack:
    """A running stack; `folder` receives its policies, configuration and logs.

    `policies` is a folder to copy or a mapping of file name to text. With `portable`, or an Envoy that
    reads no usage itself, the bootstrap is `envoy/filter.yaml` pasted into a small one. `provider_port`
    is a provider of the test's own in place of the demo's; `edit` changes the rendered bootstrap.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policies: Mapping[str, str] | Path,
        envoy: str = binaries.NEWEST,
        usage: UsageMode = "native",
        portable: bool | None = None,
        environment: Mapping[str, str] | None = None,
        otlp_endpoint: str | None = None,
        provider_port: int | None = None,
        edit: Callable[[str], str] = str,
    ) -> None:
        self.folder = folder
        self.envoy_version = envoy
        self.usage = usage
        self.portable = usage == "stream" if portable is None else portable
        self.environment = dict(environment or {})
        self.otlp_endpoint = otlp_endpoint
        self._edit = edit
        self.policies = folder / "policies"
        self._given = policies
        self.gateway_port, self._envoy_admin_port, self._admin_port, self._demo_port = free_ports(4)
        self._runs_provider = provider_port is None
        if provider_port is not None:
            self._demo_port = provider_port
        self._grpc = f"127.0.0.1:{free_ports(1)[0]}"
        self._provider: Child | None = None
        self._sidecar: Child | None = None
        self._gateway: Gateway | None = None

    # --- addresses

    @property
    def gateway_url(self) -> str:
        """Where callers connect."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def admin_url(self) -> str:
        """The sidecar's HTTP admin."""
        return f"http://127.0.0.1:{self._admin_port}"

    @property
    def envoy_admin_url(self) -> str:
        """Envoy's admin."""
        return f"http://127.0.0.1:{self._envoy_admin_port}"

    @property
    def demo_url(self) -> str:
        """The demo provider itself, past every policy."""
        return f"http://127.0.0.1:{self._demo_port}"

    # --- life

    def __enter__(self) -> Self:
        try:
            self._write_policies()
            if self._runs_provider:
                self._provider = self._start("provider", self._provider_command())
            self._launch_sidecar()
            if self._provider is not None:
                self._await(self._demo_port, "/healthz", self._provider)
            self._await(self._admin_port, "/readyz", self._running_sidecar)
            self._gateway = self._start_envoy()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if error is not None:
            error.add_note(self.logs())

    def start_sidecar(self) -> None:
        """Start the sidecar again, after `kill_sidecar`; it is ready, and Envoy knows, when this returns."""
        self._launch_sidecar()
        self._await(self._admin_port, "/readyz", self._running_sidecar)
        self.await_envoys_view(healthy=True)

    @property
    def demo_port(self) -> int:
        """Where the provider listens."""
        return self._demo_port

    @property
    def has_sidecar(self) -> bool:
        """Whether the sidecar was not killed, or was started again."""
        return self._sidecar is not None

    def signal_sidecar(self, number: signal.Signals) -> None:
        """Send this signal to the sidecar, and do not wait."""
        self._running_sidecar.process.send_signal(number)

    def kill_sidecar(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send this signal to the sidecar and wait for its end."""
        sidecar = self._running_sidecar
        sidecar.process.send_signal(number)
        sidecar.process.wait(60)
        self._sidecar = None

    def await_envoys_view(self, *, healthy: bool) -> None:
        """Return once Envoy's health check says so about the sidecar."""
        expected = int(healthy)
        child.wait_until(
            lambda: (
                self.envoy_stats("cluster.ai_policy.membership_healthy")
                == {"cluster.ai_policy.membership_healthy": expected}
            ),
            what=f"a sidecar that Envoy sees as {'healthy' if healthy else 'down'}",
            children=[self.gateway.process],
            timeout_s=START_S,
        )

    # --- what it says

    @property
    def gateway(self) -> Gateway:
        """The running Envoy."""
        assert self._gateway is not None, "the stack is not running"
        return self._gateway

    def books(self) -> dict[str, Any]:
        """The provider's own account of what it answered."""
        books: dict[str, Any] = json.loads(self._ask_provider("GET"))
        return books

    def clear_books(self) -> None:
        """Forget what the provider answered."""
        self._ask_provider("DELETE")

    def access_log(self, count: int = 1) -> list[dict[str, Any]]:
        """Envoy's access log, once it has at least `count` entries."""
        return self.gateway.access_log(count)

    def envoy_stats(self, prefix: str = "") -> dict[str, int]:
        """Envoy's counters and gauges whose name starts with `prefix`."""
        return self.gateway.stats(prefix)

    def write_policy(self, name: str, text: str) -> None:
        """Put one policy file into the folder, in one step; the sidecar notices by itself."""
        draft = self.folder / f"{name}.draft"
        draft.write_text(text)
        draft.replace(self.policies / name)

    def logs(self) -> str:
        """The last lines of every process."""
        tails = []
        for path in sorted(self.folder.glob("*.log")):
            tails += [f"--- {path}", *path.read_text(errors="replace").splitlines()[-40:]]
        return "\n".join(tails)

    # --- parts

    @property
    def _running_sidecar(self) -> Child:
        assert self._sidecar is not None, "the sidecar is not running"
        return self._sidecar

    def _write_policies(self) -> None:
        if isinstance(self._given, Path):
            shutil.copytree(self._given, self.policies)
            return
        self.policies.mkdir()
        for name, text in self._given.items():
            (self.policies / name).write_text(text)

    def _provider_command(self) -> list[str]:
        return [sys.executable, "-m", "demo.provider", "--port", str(self._demo_port)]

    def _launch_sidecar(self) -> None:
        command = [sys.executable, "-m", "extproc", "serve", "--policies", str(self.policies)]
        command += ["--grpc", self._grpc, "--admin-port", str(self._admin_port), "--usage", self.usage]
        self._sidecar = self._start("sidecar", command)

    def _start(self, name: str, command: list[str]) -> Child:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("EXTPROC_", "OTEL_", "DEMO_"))
        }
        otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp_endpoint} if self.otlp_endpoint else {}
        return child.start(
            name,
            command,
            log=self.folder / f"{name}.log",
            environment=inherited | otlp | self.environment,
            folder=ROOT,
        )

    def _start_envoy(self) -> Gateway:
        return start_envoy(
            self._edit(self._bootstrap()),
            port=self.gateway_port,
            admin_port=self._envoy_admin_port,
            folder=self.folder,
            version=self.envoy_version,
        )

    def _bootstrap(self) -> str:
        limit = policyset.load(self.policies).defaults.max_body_bytes
        settings = EnvoySettings(
            gateway_port=self.gateway_port,
            admin_port=self._envoy_admin_port,
            policy_endpoints=(self._grpc,),
            body_limit_bytes=limit,
            usage=self.usage,
            demo_provider=f"127.0.0.1:{self._demo_port}",
            otlp_endpoint=self.otlp_endpoint,
            access_log_path=str(self.folder / "access.log"),
        )
        if not self.portable:
            return render_bootstrap(settings)
        snippet = FilterSettings(policy_endpoints=(self._grpc,), body_limit_bytes=limit)
        return render_portable_bootstrap(settings, render_filter(snippet))

    def _await(self, port: int, path: str, process: Child) -> None:
        child.wait_until(
            lambda: child.get("127.0.0.1", port, path)[0] == 200,
            what=process.name,
            children=[process],
            timeout_s=START_S,
        )

    def _ask_provider(self, method: str) -> bytes:
        status, body = child.get("127.0.0.1", self._demo_port, "/books", method=method)
        assert 200 <= status < 300, f"the demo provider answered {status}"
        return body

    def _stop(self) -> None:
        if self._gateway is not None:
            self._gateway.process.stop(grace_s=2)
        for process in (self._sidecar, self._provider):
            if process is not None:
                process.stop(grace_s=5)
        self._gateway = self._sidecar = self._provider = None


def check_often(bootstrap: str) -> str:
    """An `edit` for tests whose sidecar dies or freezes: Envoy asks after it four times as often."""
    changed, count = re.subn(
        r"^( +(?:no_traffic_)?interval): 2s$", r"\1: 0.5s", bootstrap, flags=re.MULTILINE
    )
    assert count == 2
    return changed
