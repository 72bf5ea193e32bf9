"""What an Envoy configuration is rendered from: addresses, providers, limits.

Values and the tables of providers and of Envoy's own answers. No templates and no I/O here.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

from extproc.errors import SettingsInvalid

UsageMode = Literal["native", "stream"]

OPENAI_CLUSTER = "provider_openai"
ANTHROPIC_CLUSTER = "provider_anthropic"
GEMINI_CLUSTER = "provider_gemini"
OTHER_CLUSTER = "provider_other"  # every API that no real provider below takes

# The key that the demo provider accepts; it opens nothing else.
DEMO_PROVIDER_KEY = "sk-provider-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where something listens: a Unix socket, or a host (name or address) and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `unix:PATH`, `HOST:PORT` or `[IPV6]:PORT`.

        Raises:
            SettingsInvalid: the text is neither.

        """
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise SettingsInvalid(f"{text!r} is not an address; write unix:PATH or HOST:PORT")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def is_name(self) -> bool:
        """Whether the host is a name that must be resolved."""
        if not self.host:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    @property
    def address(self) -> str:
        """Envoy's Address message, as YAML in flow style."""
        if self.path:
            return f"{{pipe: {{path: {json.dumps(self.path)}}}}}"
        return f"{{socket_address: {{address: {json.dumps(self.host)}, port_value: {self.port}}}}}"

    @property
    def cluster_type(self) -> str:
        """Envoy's discovery type for a cluster of this endpoint alone."""
        return "STRICT_DNS" if self.is_name else "STATIC"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealProvider:
    """A provider on the internet that can stand in for the demo provider.

    Some also speak OpenAI's API; they take its routes too where no provider of these was chosen.
    """

    cluster: str  # whose traffic it takes
    host: str
    key_variable: str
    openai_prefix: str = ""  # what its OpenAI-like API has in place of /v1/; empty: it has none


REAL_PROVIDERS = {
    "openai": RealProvider(
        cluster=OPENAI_CLUSTER, host="api.openai.com", key_variable="OPENAI_API_KEY", openai_prefix="/v1/"
    ),
    "anthropic": RealProvider(
        cluster=ANTHROPIC_CLUSTER, host="api.anthropic.com", key_variable="ANTHROPIC_API_KEY"
    ),
    "gemini": RealProvider(
        cluster=GEMINI_CLUSTER,
        host="generativelanguage.googleapis.com",
        key_variable="GEMINI_API_KEY",
        openai_prefix="/v1beta/openai/",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """The snippet for an Envoy that is already there."""

    policy_endpoints: tuple[str, ...] = ("127.0.0.1:50051",)  # one a sidecar process
    body_limit_bytes: int = 32 * 1024 * 1024  # Defaults.maxBodyBytes of the policy folder
    usage: UsageMode = "stream"
    provider_cluster: str = "your_provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """A whole Envoy; the defaults are `make up`'s addresses."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = 10000
    admin_host: str = "127.0.0.1"
    admin_port: int = 9901
    policy_endpoints: tuple[str, ...] = ("127.0.0.1:50051",)  # one a sidecar process
    body_limit_bytes: int = 32 * 1024 * 1024  # Defaults.maxBodyBytes of the policy folder
    usage: UsageMode = "native"
    demo_provider: str = "127.0.0.1:10100"
    demo_provider_key: str = DEMO_PROVIDER_KEY
    upstreams: tuple[str, ...] = ()  # names of REAL_PROVIDERS; what none of them takes goes to the demo
    secrets_dir: str = "/etc/envoy/secrets"  # one CLUSTER.yaml a real provider
    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"  # authorities that real providers are checked by
    otlp_endpoint: str | None = None  # http://HOST:PORT or https://HOST:PORT, gRPC
    trace_sampling_percent: float = 100.0
    access_log_path: str = "/dev/stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpEndpoint:
    """Where spans go, over gRPC."""

    endpoint: Endpoint
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read OpenTelemetry's endpoint URL; without a port it is 4317.

        Raises:
            SettingsInvalid: not an http or https URL with a host.

        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsInvalid(
                "OTEL_EXPORTER_OTLP_ENDPOINT must be http://HOST:PORT or https://HOST:PORT, spoken as gRPC"
            )
        return cls(
            endpoint=Endpoint(host=parts.hostname, port=parts.port or 4317), tls=parts.scheme == "https"
        )
