"""Envoy's configuration, rendered: a whole bootstrap, or the parts to paste into one that exists."""

from extproc.envoy_config.render import real_providers, render_bootstrap, render_filter, secret_document
from extproc.envoy_config.settings import EnvoySettings, FilterSettings, RealProvider, UsageMode

__all__ = [
    "EnvoySettings",
    "FilterSettings",
    "RealProvider",
    "UsageMode",
    "real_providers",
    "render_bootstrap",
    "render_filter",
    "secret_document",
]
