"""An Envoy as an operator might already run it, with the parts of `envoy/filter.yaml` pasted in."""

from __future__ import annotations

from typing import Any

import yaml

from extproc.envoy_config import EnvoySettings
from extproc.envoy_config.settings import Endpoint

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
# Upgrades are on, so that the snippet itself must keep WebSockets off the AI routes.
UPGRADES = [{"upgrade_type": "websocket"}]


# name, path, the header that carries the provider's key, its value
ROUTES = (
    ("anthropic", "/v1/messages", "x-api-key", "{key}"),
    ("openai", "/v1/", "authorization", "Bearer {key}"),
    ("gemini", "/v1beta/", "x-goog-api-key", "{key}"),
    ("bedrock", "/model/", "authorization", "Bearer {key}"),
    ("cohere", "/v2/", "authorization", "Bearer {key}"),
    ("ollama", "/api/", "authorization", "Bearer {key}"),
)


def render_portable_bootstrap(settings: EnvoySettings, snippet: str) -> str:
    """A minimal bootstrap around the snippet; of `settings` only addresses, key and access log count."""
    parts = yaml.safe_load(snippet)
    base, own = parts["routes"][:-1], parts["routes"][-1]
    manager = {
        "@type": (
            "type.googleapis.com/"
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "gateway",
        "upgrade_configs": UPGRADES,
        "access_log": [_access_log(settings.access_log_path)],
        "local_reply_config": parts["local_reply_config"],
        "http_filters": [*parts["http_filters"], ROUTER],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "gateway",
                    "domains": ["*"],
                    "request_headers_to_remove": parts["request_headers_to_remove"],
                    "routes": [
                        *base,
                        *(
                            _route(own, name, prefix, header, value.format(key=settings.demo_provider_key))
                            for name, prefix, header, value in ROUTES
                        ),
                    ],
                }
            ]
        },
    }
    provider = {
        "name": "provider",
        "type": "STATIC",
        "load_assignment": _assignment("provider", Endpoint.parse(settings.demo_provider)),
    }
    return yaml.safe_dump(
        {
            "admin": {"address": _address(settings.admin_host, settings.admin_port)},
            "static_resources": {
                "listeners": [
                    {
                        "name": "gateway",
                        "address": _address(settings.gateway_host, settings.gateway_port),
                        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                    }
                ],
                "clusters": [provider, *parts["clusters"]],
            },
        }
    )


def _route(own: dict[str, Any], name: str, prefix: str, header: str, value: str) -> dict[str, Any]:
    """The snippet's route, as its operator would adapt it."""
    credential = {
        "header": {"key": header, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return own | {
        "name": name,
        "match": {"prefix": prefix},
        "route": own["route"] | {"cluster": "provider"},
        "request_headers_to_add": [credential],
    }


def _access_log(path: str) -> dict[str, Any]:
    fields = {
        "path": "%PATH(NQ)%",
        "route": "%ROUTE_NAME%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "bytes_sent": "%BYTES_SENT%",
        "decision_id": "%DYNAMIC_METADATA(ai_policy:decision_id)%",
        "effect": "%DYNAMIC_METADATA(ai_policy:effect)%",
        "policy": "%DYNAMIC_METADATA(ai_policy:policy)%",
        "ai_policy": "%FILTER_STATE(ai_policy:TYPED)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": fields},
        },
    }


def _assignment(cluster: str, endpoint: Endpoint) -> dict[str, Any]:
    address = _address(endpoint.host, endpoint.port)
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
