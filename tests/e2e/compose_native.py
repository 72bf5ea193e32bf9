"""Runs the services of docker-compose.yml as plain processes, and prints as JSON what it saw.

To be started as root inside `unshare --net --mount`: service names resolve to loopback and volumes
lie at their container paths, so that the very same files, commands and health checks run. A service
without a native program is left out.

    python -m tests.e2e.compose_native PROJECT SCRATCH BIN
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from demo import child
from tests.e2e.composition import Service, services
from tests.e2e.namespace import loopback_up, mount, write_hosts

# Paths inside an image; the programs here know their own.
IMAGE_PATHS = ("PATH", "EXTPROC_VOCAB", "EXTPROC_STATE")
NATIVE = ("demo", "extproc", "envoy", "prometheus")
# A volume that the image has, and this machine has not.
VOLUME = "/prometheus"
# One of what each job scrapes.
SCRAPED = ("ai_policy_decisions_total", "envoy_http_ext_proc_ai_policy_streams_started")

LOCKED = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: all-closed}
spec: {effect: deny, match: "true", message: closed for the test}
"""


def main(project: Path, scratch: Path, binaries: Path) -> None:
    """Bring everything up, ask, edit a policy, ask again."""
    declared = services(project)
    loopback_up()
    shadow_etc(project, scratch, declared)
    running: list[child.Child] = []
    try:
        for name in TopologicalSorter(
            {name: each.waits_for for name, each in declared.items()}
        ).static_order():
            if name in NATIVE:
                running.append(run(declared[name], scratch, binaries, running))
        seen: dict[str, object] = {"healthy": [each.name for each in running]}
        seen["allowed"] = ask("gpt-4o-mini")
        seen["denied"] = ask("o1-pro")
        (project / "policies" / "locked.yaml").write_text(LOCKED)
        child.wait_until(
            lambda: ask("gpt-4o-mini")[0] == 403, what="the edited policy", children=running, timeout_s=20
        )
        seen["after_edit"] = ask("gpt-4o-mini")
        child.wait_until(
            lambda: scraped() == list(SCRAPED), what="the metrics", children=running, timeout_s=30
        )
        seen["scraped"] = scraped()
        seen["admin_without_token"] = child.get("127.0.0.1", 8080, "/policies")[0]
        sys.stdout.write(json.dumps(seen))
    finally:
        for each in reversed(running):
            each.stop(grace_s=5)


def shadow_etc(project: Path, scratch: Path, declared: dict[str, Service]) -> None:
    """Give this mount namespace an /etc with the service names and every volume in its place."""
    shutil.copytree("/etc", scratch / "etc", symlinks=True, ignore_dangling_symlinks=True)
    write_hosts(scratch / "etc" / "hosts", declared)
    volumes = [
        (project / source, Path(target)) for each in declared.values() for source, target in each.mounts
    ]
    for source, target in volumes:
        place = scratch / target.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if source.is_dir() else place.touch()
    mount("--bind", str(scratch / "etc"), "/etc")
    for source, target in volumes:
        mount("--bind", str(source), str(target))
        mount("-o", "remount,bind,ro", str(target))


def run(service: Service, scratch: Path, binaries: Path, running: list[child.Child]) -> child.Child:
    """Start one service; its health check passes when this returns."""
    outer = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/root")}
    environment = outer | {
        name: text for name, text in service.environment.items() if name not in IMAGE_PATHS
    }
    started = child.start(
        service.name,
        [
            shutil.which(service.command[0], path=environment["PATH"]) or "missing",
            *(argument.replace(f"={VOLUME}", f"={scratch}{VOLUME}") for argument in service.command[1:]),
        ],
        log=scratch / f"{service.name}.log",
        environment=environment,
        folder=Path(__file__).parents[2],
    )
    check = [
        shutil.which(service.healthcheck[0], path=environment["PATH"]) or "missing",
        *service.healthcheck[1:],
    ]
    try:
        child.wait_until(
            lambda: not subprocess.run(check, env=environment, capture_output=True, check=False).returncode,
            what=f"the health check of {service.name}",
            children=[started, *running],
            timeout_s=60,
        )
    except BaseException:
        started.stop(grace_s=0)
        raise
    return started


def scraped() -> list[str]:
    """Which of these Prometheus has."""
    asked = ((name, child.get("127.0.0.1", 9090, f"/api/v1/query?query={name}")) for name in SCRAPED)
    return [name for name, (_, answer) in asked if json.loads(answer)["data"]["result"]]


def ask(model: str) -> tuple[int, str]:
    """One chat request through the published port."""
    connection = http.client.HTTPConnection("127.0.0.1", 10000, timeout=20)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    headers = {"authorization": "Bearer sk-demo", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
