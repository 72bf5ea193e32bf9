"""Real providers' names on this machine, and whether Envoy reaches them by TLS with their keys.

To be started as root inside `unshare --net --mount`; prints as JSON what the providers got.

    python -m tests.e2e.tls_native SCRATCH
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demo import child
from extproc.envoy_config import EnvoySettings, real_providers, render_bootstrap, secret_document
from extproc.envoy_config.settings import REAL_PROVIDERS
from tests.e2e import stand_ins
from tests.e2e.gateway import Gateway, free_ports, gateway
from tests.e2e.namespace import loopback_up, mount, write_hosts

# What each is asked for; the first also with a changed key.
PATHS = {
    "openai": ("/v1/chat/completions",),
    "anthropic": ("/v1/messages",),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", "/v1/chat/completions"),
}
NAMES = [provider.host for provider in REAL_PROVIDERS.values()]


def main(scratch: Path) -> None:
    """Ask every real provider through a gateway of its own, then one that shows a false certificate."""
    loopback_up()
    write_hosts(scratch / "hosts", NAMES)
    mount("--bind", str(scratch / "hosts"), "/etc/hosts")
    certify(scratch)
    state = stand_ins.Provider()
    impostor: list[str] = []
    server = serve(scratch, state, impostor)
    with stand_ins.sidecar() as sidecar:
        seen: dict[str, Any] = {name: visit(name, scratch, sidecar.port, state) for name in REAL_PROVIDERS}
        impostor.append(REAL_PROVIDERS["openai"].host)
        with gateway_to("anthropic", scratch, sidecar.port) as envoy:
            seen["impostor"] = ask(envoy.port, "/v1/messages")
    server.shutdown()
    sys.stdout.write(json.dumps(seen))


def visit(name: str, scratch: Path, sidecar_port: int, state: stand_ins.Provider) -> dict[str, Any]:
    """Ask one provider, then change its key while Envoy runs; returns what it got at first."""
    cluster = REAL_PROVIDERS[name].cluster
    path, *also = PATHS[name]
    secret = scratch / f"{cluster}.yaml"
    for taken in real_providers((name,)):
        (scratch / f"{taken}.yaml").write_text(secret_document(taken, "first-key"))
    with gateway_to(name, scratch, sidecar_port) as envoy:
        got = []
        for each in (path, *also):
            status = ask(envoy.port, each)
            got.append(state.requests[-1])
        draft = scratch / "draft.yaml"
        draft.write_text(secret_document(cluster, "second-key"))
        draft.replace(secret)
        child.wait_until(
            lambda: ask(envoy.port, path) == status and "second-key" in str(state.requests[-1]),
            what="the new key",
            children=[envoy.process],
            timeout_s=20,
        )
    return {"status": status, "got": got}


@contextmanager
def gateway_to(name: str, scratch: Path, sidecar_port: int) -> Iterator[Gateway]:
    """Run a gateway in front of one real provider."""
    settings = settings_for(name, scratch, sidecar_port)
    with gateway(
        render_bootstrap(settings),
        port=settings.gateway_port,
        admin_port=settings.admin_port,
        folder=scratch,
    ) as envoy:
        yield envoy


def settings_for(name: str, scratch: Path, sidecar_port: int) -> EnvoySettings:
    """What such a gateway is rendered from."""
    port, admin_port = free_ports(2)
    return EnvoySettings(
        gateway_port=port,
        admin_port=admin_port,
        policy_endpoints=(f"127.0.0.1:{sidecar_port}",),
        upstreams=(name,),
        secrets_dir=str(scratch),
        ca_file=str(scratch / "ca.pem"),
        access_log_path=str(scratch / "access.log"),
    )


def certify(scratch: Path) -> None:
    """An authority, and a certificate by it for every name."""
    openssl = shutil.which("openssl") or "openssl"
    new = [openssl, "req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
    authority = ["-x509", "-days", "2", "-subj", "/CN=test", "-out", "ca.pem"]

    def run(*command: str) -> None:
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)

    run(*new, "ca.key", *authority)
    for name in NAMES:
        (scratch / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
        run(*new, f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        sign = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        files = ["-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.pem"]
        run(openssl, *sign, *files)


def serve(scratch: Path, state: stand_ins.Provider, impostor: list[str]) -> ThreadingHTTPServer:
    """Port 443 for every name, each with its certificate; or all with the first of `impostor`."""
    contexts = {}
    for name in NAMES:
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(scratch / f"{name}.pem", scratch / f"{name}.key")
    front = contexts[NAMES[0]]

    def choose(connection: Any, name: str, _: ssl.SSLContext) -> None:
        connection.context = contexts[impostor[0] if impostor else name]

    front.sni_callback = choose
    server = ThreadingHTTPServer(("127.0.0.1", 443), stand_ins.handler(state))
    server.daemon_threads = True
    server.socket = front.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def ask(port: int, path: str) -> int:
    """One request with a caller's key; returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, b"{}", {"authorization": "Bearer sk-of-a-caller"})
    status = connection.getresponse().status
    connection.close()
    return status


if __name__ == "__main__":
    main(Path(sys.argv[1]))
