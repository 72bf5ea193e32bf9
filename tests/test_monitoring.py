"""monitoring/: what is scraped is there, every expression evaluates, and alerts fire when they should.

With a real Prometheus. What the sidecar says here comes from the real instruments; what Envoy says, from
a real Envoy 1.40.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from extproc import gauges, keeping
from extproc.decision import Cost, Mode
from extproc.measure.prices import Prices
from extproc.model import Basis
from extproc.reload import PolicyFolder
from extproc.telemetry import Figure, Metrics, Names, Tracing
from tests.servers.prometheus import PrometheusServer, program
from tests.test_metrics import S, asked, decided, denied, settled

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "monitoring" / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring/grafana/dashboards/ai-policy.json").read_text())
SERIES: dict[str, Any] = yaml.safe_load((ROOT / "tests/fixtures/alerts.yaml").read_text())
ENVOY = (ROOT / "tests/fixtures/envoy-1.40.0-stats.prom").read_text()

# Exported by what does not run here: a supervisor of workers, and a ledger that gave up reservations.
ELSEWHERE = {"ai_policy_worker_restarts_total"}

ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
# Panels that stay empty while all is well.
QUIET = {"Errors"}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the configuration


def test_prometheus_accepts_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")


def test_every_alert_tells_a_person_what_it_is_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"].keys() == {"summary", "action"}, name
        assert rule["annotations"]["summary"].endswith("."), name
        # An alert without a number or a name says too little.
        assert "{{" in rule["annotations"]["summary"], name


def test_the_dashboard_asks_whichever_prometheus_is_chosen_and_the_provisioned_one_by_default() -> None:
    text = (ROOT / "monitoring/grafana/datasources/prometheus.yaml").read_text()
    (source,) = yaml.safe_load(text)["datasources"]
    (chosen,) = DASHBOARD["templating"]["list"]
    asked_of = {target["datasource"]["uid"] for panel in PANELS.values() for target in panel["targets"]}
    asked_of |= {panel["datasource"]["uid"] for panel in PANELS.values()}

    # A uid of its own would find no data in a Grafana that somebody runs already.
    assert asked_of == {f"${{{chosen['name']}}}"}
    assert (chosen["type"], chosen["query"], chosen["current"]["value"]) == (
        "datasource",
        source["type"],
        "default",
    )
    assert source["isDefault"]
    assert len(PANELS) == len([panel for panel in DASHBOARD["panels"] if panel["type"] != "row"])


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


# --- a real Prometheus


class Sidecar:
    """The real instruments, in traffic, and a real Envoy's words, both scraped by HTTP."""

    def __init__(self, folder: PolicyFolder) -> None:
        self.metrics = Metrics(version="1", names=Names(Prices.bundled(), lambda: folder.current))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            patch.setenv("OTEL_LOGS_EXPORTER", "otlp")
            self._tracing = Tracing(instance_id="i", version="1")
        self.metrics.watch(*gauges.of_policies(folder), *_kept(), *self._tracing.figures())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_port}"

    def serve(self) -> None:
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._tracing.close()
        self.metrics.close()

    def traffic(self) -> None:
        """A bit of everything."""
        metrics = self.metrics
        for decision in (denied(), denied(Mode.SHADOW), decided(), decided(error_type="store_unavailable")):
            metrics.decided(decision)
        streaming = decided(request=asked(stream=True))
        metrics.settled(streaming, settled(first_byte_at_ns=2 * S, cost=Cost(1500, "r")))
        metrics.settled(decided(), settled(basis=Basis.TOKENIZER, status=503, error_type="503"))
        for stage in ("understand", "evaluate", "reserve", "settle"):
            metrics.stage_duration.record(0.001, stage)
        metrics.eventloop_lag.record(0.0001)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        metrics = self.metrics

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = metrics.exposition() if self.path == "/metrics" else ENVOY.encode()
                with contextlib.suppress(ConnectionError):  # Prometheus may be gone by now
                    self.send_response(200)
                    self.send_header("content-type", "text/plain; version=0.0.4")
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        return Handler


def _kept() -> Iterator[Figure]:
    """The figures of a ledger and a store, by the names that they are exported under."""
    for name, unit, told, only_rises in (*keeping._LEDGER_FIGURES, *keeping._STORE_FIGURES):
        yield Figure(f"ai_policy.{name}", unit, told, lambda: 1, only_rises)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    made = Sidecar(PolicyFolder(ROOT / "policies"))
    made.serve()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(sidecar: Sidecar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """The shipped configuration with other addresses, in a hurry; traffic before and between scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    text = (FOLDER / "prometheus.yml").read_text()
    for address in ("extproc:8080", "envoy:9901"):
        assert address in text
        text = text.replace(address, sidecar.address)
    text = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 200ms", text)
    (folder / "prometheus.yml").write_text(text)
    (folder / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
    sidecar.traffic()
    with PrometheusServer(folder / "prometheus.yml") as server:
        server.wait_for("ai_policy_decisions_total")
        sidecar.traffic()
        # Two scrapes with different figures, of each job.
        server.wait_for('changes(ai_policy_stage_duration_seconds_count{stage="settle"}[1m]) > 0')
        server.wait_for("count_over_time(envoy_http_ext_proc_ai_policy_streams_started[1m]) > 1")
        yield server


def runnable(expression: str) -> str:
    """As Grafana would send it."""
    return expression.replace("$__rate_interval", "1m").replace("$__range", "1m")


def test_both_jobs_are_scraped(prometheus: PrometheusServer) -> None:
    assert prometheus.targets() == {"ai_policy": "", "envoy": ""}


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_something(prometheus: PrometheusServer, title: str) -> None:
    for target in PANELS[title]["targets"]:
        found = prometheus.query(runnable(target["expr"]))

        assert found or title in QUIET, target["expr"]
        for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
            assert any(label in each["metric"] or not each["metric"] for each in found), (title, label)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_evaluates(prometheus: PrometheusServer, name: str) -> None:
    prometheus.query(ALERTS[name]["expr"])


def test_what_is_asked_for_is_exported(prometheus: PrometheusServer) -> None:
    """A renamed metric would leave a panel empty and an alert silent for ever."""
    exported = {each["metric"]["__name__"] for each in prometheus.query('{__name__=~".+"}')}
    expressions = [
        *(rule["expr"] for group in RULES["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in PANELS.values() for target in panel["targets"]),
        *(each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each),
    ]
    wanted = {
        name
        for expression in expressions
        for name in re.findall(r"\b(?:ai_policy|gen_ai|envoy)_\w+(?=[\[{) ]|$)", _without_labels(expression))
    }

    assert len(wanted) > 30
    assert wanted - exported == ELSEWHERE


def _without_labels(expression: str) -> str:
    """Label names look like metrics."""
    return re.sub(r"\b(by|without) \([^)]*\)", "", re.sub(r"{[^}]*}", "", expression))


def test_models_on_the_dashboard_have_their_names(prometheus: PrometheusServer) -> None:
    found = prometheus.query("sum by (provider, model) (ai_policy_tokens_total)")

    assert {(each["metric"]["provider"], each["metric"]["model"]) for each in found} == {
        ("openai", "gpt-4o-mini")
    }


def test_an_alert_fires_in_a_real_prometheus(prometheus: PrometheusServer, sidecar: Sidecar) -> None:
    end = time.monotonic() + 20
    while not prometheus.query('ALERTS{alertname="AiPolicyFailsOpen", alertstate="firing"}'):
        assert time.monotonic() < end
        sidecar.metrics.decided(decided(error_type="store_unavailable"))
        time.sleep(0.1)


# --- every alert, by series that Prometheus makes

STEP = "1m"


def rule_test(name: str, said: dict[str, Any], series: dict[str, str], fires: int) -> dict[str, Any]:
    """One of promtool's: how many series of this alert fire."""
    firing = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
    expected = {"expr": firing, "eval_time": said["at"], "exp_samples": [{"labels": "{}", "value": fires}]}
    return {
        "name": f"{name} {'fires' if fires else 'does not fire'}",
        "interval": said.get("step", STEP),
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [expected],
    }


def test_every_alert_has_series_that_make_it_fire() -> None:
    assert SERIES.keys() == ALERTS.keys()


@pytest.mark.parametrize("step", sorted({said.get("step", STEP) for said in SERIES.values()}))
def test_alerts_fire_when_they_should_and_not_when_they_should_not(tmp_path: Path, step: str) -> None:
    tests = [
        rule_test(name, said, {**said["fires"], **changed}, fires)
        for name, said in SERIES.items()
        if said.get("step", STEP) == step
        for changed, fires in ((said["fires"], 1), (said["calm"], 0))
    ]
    document = {"rule_files": [str(FOLDER / "rules.yml")], "evaluation_interval": step, "tests": tests}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))

    promtool("test", "rules", tmp_path / "test.yml")
