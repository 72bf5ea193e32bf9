"""What `make up` is to start, read from the environment; and the files it needs below `.run/`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from demo import child
from extproc.envoy_config import EnvoySettings, UsageMode, real_providers, render_bootstrap, secret_document
from extproc.envoy_config.settings import DEMO_PROVIDER_KEY, Endpoint
from extproc.errors import SettingsInvalid
from extproc.policy import policyset
from extproc.settings import ADMIN_PORT, MEMORY, Settings, worker_addresses

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"

# Where distributions keep the authorities that real providers are checked by.
CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the environment says about this stack."""

    gateway_port: int
    envoy_admin_port: int
    admin_port: int
    demo_port: int
    grpc: str
    workers: int
    policies: Path
    usage: UsageMode
    upstreams: tuple[str, ...]
    keys: Mapping[str, str]  # cluster -> key of its real provider
    demo_provider_key: str
    otlp_endpoint: str | None

    @property
    def folder(self) -> Path:
        """Where configuration, keys and logs go; another stack has another port."""
        return ROOT / ".run" / f"up-{self.gateway_port}"

    @property
    def secrets(self) -> Path:
        """Where Envoy finds the keys of real providers."""
        return self.folder / "secrets"

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the environment.

        Raises:
            SettingsInvalid: a variable makes no sense, or a real provider's key is missing.

        """
        upstreams = tuple(name.strip() for name in environment.get("UPSTREAM", "").split(",") if name.strip())
        gateway_port = _port(environment, "EXTPROC_GATEWAY_PORT", 10000)
        # Relative to the repository: the path of a Unix socket has room for 107 bytes.
        grpc = environment.get("EXTPROC_GRPC") or f"unix:.run/up-{gateway_port}/extproc.sock"
        policies = Path(environment.get("EXTPROC_POLICIES") or ROOT / "policies").absolute()
        return cls(
            gateway_port=gateway_port,
            envoy_admin_port=_port(environment, "EXTPROC_ENVOY_ADMIN_PORT", 9901),
            admin_port=_port(environment, "EXTPROC_ADMIN_PORT", ADMIN_PORT),
            demo_port=_port(environment, "EXTPROC_DEMO_PORT", 10100),
            grpc=grpc,
            workers=_workers(environment, grpc, policies),
            policies=policies,
            usage=_usage(environment.get("EXTPROC_USAGE") or "native"),
            upstreams=upstreams,
            keys=_keys(upstreams, environment),
            demo_provider_key=environment.get("DEMO_PROVIDER_KEY") or DEMO_PROVIDER_KEY,
            otlp_endpoint=environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        )


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise SettingsInvalid(f"{variable}={text!r} is no port; set a number from 1 to 65535")
    return int(text)


def _workers(environment: Mapping[str, str], grpc: str, policies: Path) -> int:
    """How many the sidecar will start; it reads store and ledger itself, and would refuse the same."""
    text = environment.get("EXTPROC_WORKERS") or "1"
    if not text.isdecimal():
        raise SettingsInvalid(f"EXTPROC_WORKERS={text!r} is no number; set 1 or more")
    return Settings(
        policies=policies,
        grpc=grpc,
        workers=int(text),
        store=environment.get("EXTPROC_STORE") or MEMORY,
        ledger=environment.get("EXTPROC_LEDGER") or "",
    ).workers


def _usage(text: str) -> UsageMode:
    if text == "native":
        return "native"
    if text == "stream":
        return "stream"
    raise SettingsInvalid(f"EXTPROC_USAGE={text!r} is unknown; set native or stream")


def _keys(upstreams: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    keys = {}
    for cluster, provider in real_providers(upstreams).items():
        key = environment.get(provider.key_variable, "")
        if not key:
            raise SettingsInvalid(f"{provider.host} needs a key: set {provider.key_variable}")
        keys[cluster] = key
    return keys


def check_ports(plan: Plan) -> None:
    """Raise `SettingsInvalid` naming every port that is taken and the variable that moves it."""
    places = [
        ("the gateway", HOST, plan.gateway_port, "EXTPROC_GATEWAY_PORT"),
        ("Envoy's admin", HOST, plan.envoy_admin_port, "EXTPROC_ENVOY_ADMIN_PORT"),
        ("the sidecar's admin", HOST, plan.admin_port, "EXTPROC_ADMIN_PORT"),
        ("the demo provider", HOST, plan.demo_port, "EXTPROC_DEMO_PORT"),
    ]
    for address in worker_addresses(plan.grpc, plan.workers):
        endpoint = Endpoint.parse(address)
        if not endpoint.path:
            places.append(("the sidecar's gRPC", endpoint.host, endpoint.port, "EXTPROC_GRPC"))
    taken = [
        f"port {port} for {what} is in use; move it with {variable}"
        for what, host, port, variable in places
        if not child.is_port_free(host, port)
    ]
    if taken:
        raise SettingsInvalid("\n".join(taken))


def write_files(plan: Plan) -> Path:
    """Write Envoy's configuration and the keys it reads; returns the configuration's path.

    Raises:
        SettingsInvalid: an address makes no sense.
        PolicyFolderInvalid: the policy folder does not load.

    """
    limit = policyset.load(plan.policies).defaults.max_body_bytes
    plan.folder.mkdir(parents=True, exist_ok=True)
    for log in plan.folder.glob("*.log"):
        log.unlink()
    config = plan.folder / "envoy.yaml"
    config.write_text(render_bootstrap(_envoy_settings(plan, limit)))
    if plan.keys:
        plan.secrets.mkdir(mode=0o700, exist_ok=True)
    for cluster, key in plan.keys.items():
        path = plan.secrets / f"{cluster}.yaml"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret_document(cluster, key))
    return config


def _envoy_settings(plan: Plan, body_limit_bytes: int) -> EnvoySettings:
    return EnvoySettings(
        gateway_host=HOST,
        gateway_port=plan.gateway_port,
        admin_host=HOST,
        admin_port=plan.envoy_admin_port,
        policy_endpoints=worker_addresses(plan.grpc, plan.workers),
        body_limit_bytes=body_limit_bytes,
        usage=plan.usage,
        demo_provider=f"{HOST}:{plan.demo_port}",
        demo_provider_key=plan.demo_provider_key,
        upstreams=plan.upstreams,
        secrets_dir=str(plan.secrets),
        ca_file=next((path for path in CA_FILES if Path(path).is_file()), CA_FILES[0]),
        otlp_endpoint=plan.otlp_endpoint,
        access_log_path=str(plan.folder / "access.log"),
    )


def remove_keys(plan: Plan) -> None:
    """Leave no key behind."""
    if plan.secrets.is_dir():
        shutil.rmtree(plan.secrets)
