"""Which signals are exported by OTLP, and how: OpenTelemetry's own variables decide."""

from __future__ import annotations

import pytest

from extproc.errors import SettingsInvalid
from extproc.telemetry import Metrics, otlp
from extproc.telemetry.otlp import Signal

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests."""
    for signal in Signal:
        monkeypatch.delenv(f"OTEL_{signal}_EXPORTER", raising=False)
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", raising=False)
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", raising=False)
    for name in ("ENDPOINT", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize(
    ("said", "is_exported"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_{}_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_{}_EXPORTER": "otlp"}, True),
        ({"OTEL_{}_EXPORTER": "console, OTLP"}, True),
        ({"OTEL_{}_EXPORTER": "none"} | ENDPOINT, False),
        ({"OTEL_{}_EXPORTER": "prometheus"} | ENDPOINT, False),
        ({"OTEL_{}_EXPORTER": ""} | ENDPOINT, True),
        ({"OTEL_SDK_DISABLED": "true"} | ENDPOINT, False),
    ],
)
def test_an_endpoint_or_the_word_otlp_asks_for_a_signal(
    *, signal: Signal, said: dict[str, str], is_exported: bool
) -> None:
    environ = {name.format(signal): value for name, value in said.items()}

    assert otlp.is_exported(signal, environ) is is_exported


def test_an_endpoint_of_one_signal_asks_for_no_other() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}

    assert [signal for signal in Signal if otlp.is_exported(signal, environ)] == [Signal.TRACES]


def test_a_signals_own_protocol_goes_before_that_of_all() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
    }

    assert otlp.protocol(Signal.METRICS, {}) == "grpc"
    assert otlp.protocol(Signal.METRICS, environ) == "http/protobuf"
    assert otlp.protocol(Signal.TRACES, environ) == "grpc"


def test_a_protocol_that_nobody_speaks_is_refused_by_the_variables_name() -> None:
    with pytest.raises(SettingsInvalid, match=r"OTEL_EXPORTER_OTLP_PROTOCOL=http/json: .*grpc"):
        otlp.protocol(Signal.LOGS, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("make", [otlp.span_exporter, otlp.metric_exporter, otlp.log_exporter])
def test_every_signal_has_an_exporter_for_either_protocol(
    make: object, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    assert make() is None

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    exporter = make()
    assert exporter is not None
    exporter.shutdown()

    assert protocol.partition("/")[0] in type(exporter).__module__


def test_the_resource_is_as_the_variables_say_but_each_process_is_an_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = otlp.resource(version="1", instance_id="host:worker-0").attributes
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway-policy")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod,deployment.environment.name=x")
    theirs = otlp.resource(version="1", instance_id="host:worker-0").attributes

    assert ours["service.name"] == "extproc"
    assert theirs["service.name"] == "gateway-policy"
    assert theirs["deployment.environment.name"] == "x"
    assert theirs["service.version"] == "1"
    assert theirs["service.instance.id"] == "host:worker-0"


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some"),
    ],
)
def test_a_variable_that_makes_no_sense_is_said(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, said)

    with pytest.raises(SettingsInvalid, match="OTEL_"):
        Metrics(version="1", instance_id="x")


def test_what_the_sdk_says_of_a_variable_is_told_without_passwords() -> None:
    with pytest.raises(SettingsInvalid) as raised, otlp.understood():
        raise ValueError("no port in http://me:canary@collector:x")

    assert "collector" in str(raised.value)
    assert "canary" not in str(raised.value)
