"""The rows: which sidecar stands beside Envoy, and what Envoy is told. Pure: settings in, YAML out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from extproc.envoy_config import EnvoySettings, UsageMode, render_bootstrap

FILTER = "ai_policy"
# The most a limit may say: nobody reaches it, and everything is counted all the same.
OUT_OF_REACH = 10**11
_MOST = {
    **dict.fromkeys(("requests", "tokens", "inputTokens", "outputTokens", "burst"), OUT_OF_REACH),
    "costUsd": 4_000_000,
}
_MOST_IN_FLIGHT = 1_000_000


class Sidecar(StrEnum):
    """Who answers Envoy's ext_proc filter."""

    NOBODY = "nobody"
    EMPTY = "empty"
    OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to run Envoy."""

    name: str
    about: str
    sidecar: Sidecar
    usage: UsageMode


# The first is what the others are compared with; the second, what our sidecar is.
ROWS = (
    Row(
        name="envoy alone",
        about="the same listener, routes and providers; no ext_proc filter, nobody reads usage",
        sidecar=Sidecar.NOBODY,
        usage="stream",
    ),
    Row(
        name="empty ext_proc",
        about="as `ours, native`, with a grpc.aio server that answers every message with nothing",
        sidecar=Sidecar.EMPTY,
        usage="native",
    ),
    Row(
        name="ours, native",
        about="extproc serve, the sample policies with limits out of reach; Envoy reads the usage",
        sidecar=Sidecar.OURS,
        usage="native",
    ),
    Row(
        name="ours, stream",
        about="the same; the sidecar reads the usage out of every answer",
        sidecar=Sidecar.OURS,
        usage="stream",
    ),
)
BASELINE, EMPTY = ROWS[0].name, ROWS[1].name


def bootstrap(row: Row, settings: EnvoySettings) -> str:
    """Envoy's configuration for one row, out of settings that name the row's usage."""
    text = render_bootstrap(settings)
    return without_policy(text) if row.sidecar is Sidecar.NOBODY else text


def without_policy(text: str) -> str:
    """The same Envoy without the policy filter: nothing on a route, in the chain or a cluster knows it."""
    config = yaml.safe_load(text)
    resources = config["static_resources"]
    (listener,) = resources["listeners"]
    (manager,) = (each["typed_config"] for each in listener["filter_chains"][0]["filters"])
    manager["http_filters"] = _unnamed(manager["http_filters"])
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route.pop("typed_per_filter_config", None)
    resources["clusters"] = _unnamed(resources["clusters"])
    return yaml.safe_dump(config)


def _unnamed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for part in parts if part["name"] != FILTER]


def out_of_reach(text: str) -> str:
    """A policy file with every limit's amount raised, so that a benchmark is never refused."""
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        spec = document["spec"]
        limit = spec.get("limit", {})
        limit.update({unit: most for unit, most in _MOST.items() if unit in limit})
        if document["kind"] == "ConcurrencyLimit":
            spec["max"] = _MOST_IN_FLIGHT
    return yaml.safe_dump_all(documents)
