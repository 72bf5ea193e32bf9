"""The Envoy configuration that is checked in: `python -m demo.compose` writes `envoy/*.yaml`.

`envoy/envoy.yaml` is what docker-compose.yml runs, so its addresses are that file's service names.
"""

from __future__ import annotations

from pathlib import Path

from extproc.envoy_config import EnvoySettings, FilterSettings, render_bootstrap, render_filter

FOLDER = Path(__file__).parent.parent / "envoy"

# Inside a container, only 0.0.0.0 can be published; docker-compose.yml publishes on the host's loopback.
ENVOY = EnvoySettings(
    gateway_host="0.0.0.0",
    admin_host="0.0.0.0",
    policy_endpoints=("extproc:50051",),
    demo_provider="demo:10100",
    otlp_endpoint="http://jaeger:4317",
)


def checked_in() -> dict[str, str]:
    """Each file's name and the text it must have."""
    return {"envoy.yaml": render_bootstrap(ENVOY), "filter.yaml": render_filter(FilterSettings())}


if __name__ == "__main__":
    for name, text in checked_in().items():
        (FOLDER / name).write_text(text)
