"""Where a decision hangs in a trace: Envoy's word before the client's, read as the SDK reads it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extproc.model import Trace
from extproc.telemetry.parents import Parent, parent_of, span_id_of, trace_id_of

ENVOY = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}
CLIENT = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}


def test_envoys_span_is_the_parent_and_a_client_of_another_trace_is_kept_beside_it() -> None:
    parent = parent_of(ENVOY, CLIENT)

    assert parent.trace == Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert parent.is_envoys
    assert parent.client is not None
    assert parent.client.trace_id == "1" * 32


def test_a_client_in_the_same_trace_is_nothing_to_mention() -> None:
    assert parent_of(ENVOY, ENVOY).client is None


def test_without_envoys_span_the_clients_header_names_the_trace_and_no_more() -> None:
    parent = parent_of({}, CLIENT)

    assert parent.trace == Trace("1" * 32, "2" * 16)
    assert not parent.is_envoys


def test_without_either_there_is_no_parent() -> None:
    assert parent_of({}, {"traceparent": "00-zz-01"}) == Parent()
    assert Parent().trace == Trace()


def test_the_state_of_a_trace_goes_on() -> None:
    above = parent_of(ENVOY, {}).above

    assert above is not None
    assert dict(above.context.trace_state) == {"a": "1", "b": "2"}


traceparents = st.builds(
    "{}{}-{}-{}-{}{}".format,
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(["00", "01", "ff", "fe", "0", "0g"]),
    st.sampled_from(["0" * 32, "0af7651916cd43dd8448eb211c80319c", "A" * 32, "1" * 31]),
    st.sampled_from(["0" * 16, "b7ad6b7169203331", "1" * 17]),
    st.sampled_from(["00", "01", "02", "03", "ff", "1"]),
    st.sampled_from(["", "-", "-what-the-future-has", " ", "0"]),
)


@given(traceparents | st.text(max_size=60))
@example(ENVOY["traceparent"])
@example(f"00-{'1' * 32}-{'2' * 16}-01-later")
@example(f"01-{'1' * 32}-{'2' * 16}-01-later")
def test_a_header_is_read_as_the_sdk_reads_it(traceparent: str) -> None:
    carrier = {"traceparent": traceparent}
    expected = get_current_span(
        TraceContextTextMapPropagator().extract(carrier, context=Context())
    ).get_span_context()

    above = parent_of(carrier, {}).above

    if above is None:
        assert not expected.is_valid
    else:
        assert above.context == expected


@given(st.uuids())
def test_ids_follow_from_the_decisions_and_differ_from_each_other(decision_id: object) -> None:
    trace_id, span_id = trace_id_of(str(decision_id)), span_id_of(str(decision_id))

    assert (len(trace_id), len(span_id)) == (32, 16)
    assert int(trace_id, 16)
    assert int(span_id, 16)
    assert span_id not in trace_id
    assert trace_id == trace_id_of(str(decision_id))
