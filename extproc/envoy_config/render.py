"""Settings in, Envoy configuration out: `render_bootstrap`, `render_filter`, `secret_document`.

Pure: reads its own templates, writes nothing. What the lines mean stands beside them in the templates.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from extproc.envoy_config.replies import (
    LOCAL_REPLIES,
    NO_UPGRADE_BODY,
    NOT_AI_BODY,
    OURS,
    QUESTIONS_BODY,
    TWO_READINGS_BODY,
    mappers,
)
from extproc.envoy_config.routes import AI_ROUTES, ESCAPED_ARN, TWO_READINGS, AIRoute
from extproc.envoy_config.settings import (
    ANTHROPIC_CLUSTER,
    GEMINI_CLUSTER,
    OPENAI_CLUSTER,
    OTHER_CLUSTER,
    REAL_PROVIDERS,
    Endpoint,
    EnvoySettings,
    FilterSettings,
    OtlpEndpoint,
    RealProvider,
)
from extproc.errors import SettingsInvalid

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 - YAML, not HTML; every free text goes through `tojson`
)
# Jinja's own is for HTML, and writes && as a row of escapes.
TEMPLATES.filters["tojson"] = json.dumps

# cluster -> the header that carries its key, and what stands before the key.
KEY_HEADERS = {
    OPENAI_CLUSTER: ("authorization", "Bearer "),
    ANTHROPIC_CLUSTER: ("x-api-key", ""),
    GEMINI_CLUSTER: ("x-goog-api-key", ""),
    OTHER_CLUSTER: ("authorization", "Bearer "),
}

# What a caller may send and a provider must not get.
REMOVED_HEADERS = (
    "accept-encoding",
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-envoy-external-address",
    "x-envoy-internal",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCluster:
    """One provider cluster as its template sees it."""

    cluster: str
    real: bool
    endpoint: Endpoint
    cluster_type: str
    key_header: str
    key_prefix: str
    secret_path: str
    idle_timeout: str
    openai_prefix: str = "/v1/"

    @property
    def host(self) -> str:
        """The name asked for, in TLS too."""
        return self.endpoint.host

    @property
    def address(self) -> str:
        """Envoy's Address message."""
        return self.endpoint.address


def render_bootstrap(settings: EnvoySettings) -> str:
    """A complete bootstrap as YAML; native usage needs Envoy 1.40, stream 1.38 or newer.

    Raises:
        SettingsInvalid: an address, a provider or the OTLP endpoint makes no sense.

    """
    providers = _providers(settings)
    by_cluster = {provider.cluster: provider for provider in providers}
    otlp = OtlpEndpoint.parse(settings.otlp_endpoint) if settings.otlp_endpoint else None
    return _render(
        "bootstrap.yaml.j2",
        **_policy_words(settings),
        **{name: getattr(settings, name) for name in _PLAIN_WORDS},
        otlp=otlp
        and {
            "tls": otlp.tls,
            "host": otlp.endpoint.host,
            "address": otlp.endpoint.address,
            "cluster_type": otlp.endpoint.cluster_type,
        },
        providers=providers,
        escaped_arn=_route(ESCAPED_ARN, by_cluster),
        routes=[_route(each, by_cluster) for each in AI_ROUTES],
        two_readings=TWO_READINGS,
        demo_secrets=[provider.cluster for provider in providers if not provider.real],
        demo_key=settings.demo_provider_key,
        removed_headers=REMOVED_HEADERS,
        not_ai_body=NOT_AI_BODY,
        two_readings_body=TWO_READINGS_BODY,
    )


_PLAIN_WORDS = (
    "gateway_host",
    "gateway_port",
    "admin_host",
    "admin_port",
    "ca_file",
    "trace_sampling_percent",
    "access_log_path",
)


def render_filter(settings: FilterSettings) -> str:
    """The parts to paste into an existing Envoy (1.38 or newer; 1.40 for native usage), as YAML.

    Raises:
        SettingsInvalid: an address makes no sense.

    """
    return _render(
        "filter.yaml.j2",
        **_policy_words(settings),
        provider_cluster=settings.provider_cluster,
    )


def secret_document(cluster: str, key: str) -> str:
    """The file that Envoy reads a provider's key from: `SECRETS_DIR/CLUSTER.yaml`, for Envoy's eyes only."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    secret = {"@type": kind, "name": cluster, "generic_secret": {"secret": {"inline_string": key}}}
    return json.dumps({"resources": [secret]})


def real_providers(upstreams: tuple[str, ...]) -> dict[str, RealProvider]:
    """The chosen providers by the cluster they take over.

    Raises:
        SettingsInvalid: an unknown name, or one that comes twice.

    """
    chosen: dict[str, RealProvider] = {}
    for name in upstreams:
        provider = REAL_PROVIDERS.get(name)
        if provider is None:
            raise SettingsInvalid(f"UPSTREAM={name!r} is unknown; known: {', '.join(sorted(REAL_PROVIDERS))}")
        if provider.cluster in chosen:
            raise SettingsInvalid(f"UPSTREAM={name!r} comes twice")
        chosen[provider.cluster] = provider
    speakers = [provider for provider in chosen.values() if provider.openai_prefix]
    if speakers:
        chosen.setdefault(OPENAI_CLUSTER, speakers[0])
    return chosen


def _render(template: str, **words: Any) -> str:
    return TEMPLATES.get_template(template).render(words) + "\n"


def _policy_words(settings: EnvoySettings | FilterSettings) -> dict[str, Any]:
    endpoints = [Endpoint.parse(text) for text in settings.policy_endpoints]
    if not endpoints:
        raise SettingsInvalid("at least one address of the sidecar is needed")
    names = any(endpoint.is_name for endpoint in endpoints)
    if names and any(endpoint.path for endpoint in endpoints):
        raise SettingsInvalid("sidecar addresses are all Unix sockets and IP addresses, or all names")
    return {
        "policy_endpoints": endpoints,
        "policy_cluster_type": "STRICT_DNS" if names else "STATIC",
        "body_limit_bytes": settings.body_limit_bytes,
        "usage": settings.usage,
        "ours": OURS,
        "local_replies": [{"why": reply.why, "mappers": list(mappers(reply))} for reply in LOCAL_REPLIES],
        "no_upgrade_body": NO_UPGRADE_BODY,
        "questions_body": QUESTIONS_BODY,
    }


def _providers(settings: EnvoySettings) -> list[ProviderCluster]:
    chosen = real_providers(settings.upstreams)
    return [_provider(cluster, chosen.get(cluster), settings) for cluster in KEY_HEADERS]


def _provider(cluster: str, real: RealProvider | None, settings: EnvoySettings) -> ProviderCluster:
    header, prefix = KEY_HEADERS[cluster]
    demo = Endpoint.parse(settings.demo_provider)
    return ProviderCluster(
        cluster=cluster,
        real=real is not None,
        endpoint=Endpoint(host=real.host, port=443) if real else demo,
        cluster_type="LOGICAL_DNS" if real else demo.cluster_type,
        key_header=header,
        key_prefix=prefix,
        secret_path=f"{settings.secrets_dir}/{cluster}.yaml",
        # The demo provider closes after five seconds, the real ones after a minute or more.
        idle_timeout="30s" if real else "4s",
        openai_prefix=real.openai_prefix if real else "/v1/",
    )


def _route(route: AIRoute, providers: dict[str, ProviderCluster]) -> dict[str, Any]:
    """A route as its template sees it, with the provider that speaks OpenAI's API at this base path."""
    openai_prefix = providers[OPENAI_CLUSTER].openai_prefix
    cluster, rewrite = route.cluster, ""
    if route.openai_base and route.openai_base == openai_prefix:
        cluster = OPENAI_CLUSTER
    elif cluster == OPENAI_CLUSTER:
        rewrite = f"prefix_rewrite: {json.dumps(openai_prefix + route.openai_rest)}"
    elif route.rewrite:
        pattern = json.dumps(route.rewrite)
        rewrite = f"regex_rewrite: {{pattern: {{regex: {pattern}}}, substitution: /v1/}}"
    return {
        "name": route.name,
        "match": f"{{{route.match}}}",
        "cluster": cluster,
        "real": providers[cluster].real,
        "rewrite": rewrite,
    }
