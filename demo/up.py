"""`make up`: demo provider, sidecar and Envoy in the foreground, ended together.

Writes only below `.run/`, needs no network. Exit codes: 0 ended when asked to, 1 a process died,
2 a setting, a port or a policy folder is unusable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import FrameType

from demo import child
from demo.child import Child
from demo.plan import HOST, ROOT, Plan, check_ports, remove_keys, write_files
from extproc.envoy_config.settings import REAL_PROVIDERS
from extproc.errors import AIPolicyError
from extproc.settings import ADMIN_PORT

START_S = 60.0
DRAIN_S = 10.0  # for answers that still stream when everything is to end

# What the sample requests ask for where no provider of OpenAI's models answers them.
SAMPLE_MODELS = {"gemini": "gemini-2.5-flash"}
DEFAULT_MODEL = "gpt-4o-mini"

# Keys of real providers are for Envoy alone, which reads files.
KEY_VARIABLES = frozenset(provider.key_variable for provider in REAL_PROVIDERS.values())

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody asked us to end."""


def commands(plan: Plan, config: Path) -> dict[str, list[str]]:
    """Each process's name and command line, in the order of starting."""
    serve = ["--policies", str(plan.policies), "--grpc", plan.grpc]
    serve += ["--admin-port", str(plan.admin_port), "--usage", plan.usage]
    # Store and ledger are in the environment: a password in them is in no list of processes.
    serve += ["--workers", str(plan.workers), "--state", str(plan.folder / "state")]
    # Native usage is work in progress in Envoy, which says so dozens of times at every start.
    envoy = ["-c", str(config), "--disable-hot-restart"]
    envoy += ["--log-level", "warning", "--component-log-level", "misc:error"]
    return {
        "provider": [sys.executable, "-m", "demo.provider", "--host", HOST, "--port", str(plan.demo_port)],
        "sidecar": [sys.executable, "-m", "extproc", "serve", *serve],
        "envoy": [str(child.envoy_binary()), *envoy],
    }


class Stack:
    """The three processes of one plan."""

    def __init__(self, plan: Plan, config: Path, environment: Mapping[str, str]) -> None:
        self._plan = plan
        self._config = config
        self._environment = {name: text for name, text in environment.items() if name not in KEY_VARIABLES}
        self._children: dict[str, Child] = {}

    def start(self) -> None:
        """Start all three; each is healthy when this returns."""
        for name, command in commands(self._plan, self._config).items():
            self._children[name] = child.start(
                name,
                command,
                log=self._plan.folder / f"{name}.log",
                environment=self._environment,
                folder=ROOT,
                death_signal=signal.SIGTERM,
            )
            self._await(name)

    def watch(self) -> None:
        """Return never; raise `ChildDied` when one of them ends."""
        while True:
            for each in self._children.values():
                each.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """End all of them, the gateway first, after the answers that still stream."""
        if "envoy" in self._children and self._children["envoy"].is_running:
            self._drain()
        for each in reversed(self._children.values()):
            each.stop(grace_s=DRAIN_S)

    def _await(self, name: str) -> None:
        port, path = {
            "provider": (self._plan.demo_port, "/healthz"),
            "sidecar": (self._plan.admin_port, "/readyz"),
            "envoy": (self._plan.envoy_admin_port, "/ready"),
        }[name]
        child.wait_until(
            lambda: child.get(HOST, port, path)[0] == HTTPStatus.OK,
            what=name,
            children=self._children.values(),
            timeout_s=START_S,
        )

    def _drain(self) -> None:
        """Let Envoy take no more connections and finish what it has."""
        port = self._plan.envoy_admin_port
        child.get(HOST, port, "/drain_listeners", method="POST")
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            status, body = child.get(HOST, port, "/stats?format=json&filter=gateway.downstream_rq_active")
            if status != HTTPStatus.OK or not any(stat.get("value") for stat in json.loads(body)["stats"]):
                return
            time.sleep(0.1)


def announcement(plan: Plan) -> str:
    """What is printed when everything is up."""
    url = f"http://{HOST}:{plan.gateway_port}"
    others = () if "openai" in plan.upstreams else plan.upstreams
    model = next((SAMPLE_MODELS[name] for name in others if name in SAMPLE_MODELS), DEFAULT_MODEL)
    provider = ", ".join(plan.upstreams) or "demo"
    moved = "" if plan.admin_port == ADMIN_PORT else f"EXTPROC_ADMIN_PORT={plan.admin_port} "
    extproc = f"{moved}{_shown(Path(sys.executable).parent / 'extproc')}"
    return f"""ready
  gateway        {url}  (provider: {provider}, usage: {plan.usage})
  sidecar admin  http://{HOST}:{plan.admin_port}  (a console, in a browser)
  Envoy admin    http://{HOST}:{plan.envoy_admin_port}
  demo provider  http://{HOST}:{plan.demo_port}
  policies       {plan.policies}  (edit them: they reload by themselves)
  logs           {plan.folder}

Three requests to try:
  # allowed
  {_curl(url, model)}
  # denied by AccessRule/no-o1-pro
  {_curl(url, "o1-pro")}
  # streamed
  {_curl(url, model, stream=True)}

Then ask why, by the id in the answer, and where the tokens went:
  {extproc} explain ID
  {extproc} usage --by model,reason

Ctrl-C ends all of it.
"""


def _shown(path: Path) -> Path:
    """The path as somebody in the repository's folder types it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _curl(url: str, model: str, *, stream: bool = False) -> str:
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": "Say hi."}]}
    if stream:
        body |= {"stream": True}
    headers = "-H 'authorization: Bearer sk-demo' -H 'content-type: application/json'"
    return f"curl -{'N' if stream else 'i'}s {url}/v1/chat/completions {headers} -d '{json.dumps(body)}'"


def run(environment: Mapping[str, str]) -> int:
    """Run a stack until a signal or a death; returns the exit code."""
    for number in STOPPING:
        signal.signal(number, _on_signal)
    try:
        plan = Plan.read(environment)
        check_ports(plan)
        return _run(plan, Stack(plan, write_files(plan), environment))
    except Stopped:
        return 0
    except (AIPolicyError, FileNotFoundError) as error:
        sys.stderr.write(f"make up: {error}\n")
        return 2
    except (child.ChildDied, child.NotReady) as error:
        sys.stderr.write(f"make up: {error}\n")
        return 1


def _run(plan: Plan, stack: Stack) -> int:
    try:
        stack.start()
        sys.stdout.write(announcement(plan))
        sys.stdout.flush()
        stack.watch()
    finally:
        # A second signal ends this process at once, and the kernel then ends its children.
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        stack.stop()
        remove_keys(plan)
    return 0


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(run(os.environ))
