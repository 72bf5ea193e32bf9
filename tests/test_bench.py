"""The benchmark: its arithmetic, its HTTP reader, its refusal to count failures, and one short run."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench import cpu, decisions, figures, load, redis_store, report
from bench.__main__ import check
from bench.errors import BenchFailed
from bench.figures import Cell, Figure
from bench.http1 import AnswerReader
from bench.load import Job, Sample
from bench.machine import Machine
from bench.policies import run, write
from bench.rows import ROWS, Sidecar, bootstrap, out_of_reach, without_policy
from bench.turns import Turn, measure
from bench.workloads import workloads
from extproc.envoy_config import EnvoySettings, render_bootstrap
from extproc.policy import policyset

ROOT = Path(__file__).parent.parent

COUNTED = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nx-a: b\r\n\r\n{"ok":true}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"c\r\ndata: {}\r\n\r\n\r\nE;name=value\r\ndata: [DONE]\n\n\r\n0\r\n"
)
ANSWERS = {
    COUNTED: b'{"ok":true}',
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n": b"",
    CHUNKED + b"\r\n": b"data: [DONE]\n\n",
    CHUNKED + b"x-usage: 12\r\ngrpc-status: 0\r\n\r\n": b"data: [DONE]\n\n",
}


# --- answers


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_ends_at_its_last_byte_wherever_it_is_split(answer: bytes) -> None:
    for split in range(1, len(answer)):
        reader = AnswerReader()

        assert not reader.feed(answer[:split])
        assert reader.feed(answer[split:])
        assert reader.status == int(answer[9:12])
        assert reader.tail == ANSWERS[answer]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_can_arrive_byte_by_byte(answer: bytes) -> None:
    reader = AnswerReader()

    ended = [reader.feed(answer[at : at + 1]) for at in range(len(answer))]

    assert ended == [False] * (len(answer) - 1) + [True]
    assert reader.tail == ANSWERS[answer]


@given(chunks=st.lists(st.binary(min_size=1, max_size=300), min_size=1), cut=st.integers(1, 700))
def test_chunks_of_any_bytes_are_read_to_their_end(chunks: list[bytes], cut: int) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    reader = AnswerReader()

    for at in range(0, len(answer), cut):
        reader.feed(answer[at : at + cut])

    assert reader.is_complete
    assert reader.tail == chunks[-1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (COUNTED + b"HTTP", "after the end"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "nothing announces"),
        (b"SSH-2.0-x\r\n\r\n", "status line"),
        (CHUNKED[: CHUNKED.index(b"c\r\n")] + b"-5\r\nx", "size"),
    ],
)
def test_what_is_no_answer_is_refused(answer: bytes, why: str) -> None:
    with pytest.raises(BenchFailed, match=why):
        AnswerReader().feed(answer)


# --- the load


class Scripted(asyncio.Protocol):
    """A server's side that gives these answers in turn, the last one for ever; an empty one hangs up."""

    def __init__(self, answers: tuple[bytes, ...], closed: list[asyncio.Event]) -> None:
        self._left = list(answers)
        self._closed = asyncio.Event()
        closed.append(self._closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        answer = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if answer:
            self._transport.write(answer)
        else:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closed.set()


@asynccontextmanager
async def upstream(*answers: bytes) -> AsyncIterator[int]:
    closed: list[asyncio.Event] = []
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Scripted(answers, closed), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for each in closed:
            await each.wait()


def job(port: int) -> Job:
    own_group = {"own": os.getpgrp()}
    request = "POST / HTTP/1.1\r\n\r\n"
    return Job(
        port=port, request=request, ending="}", connections=3, warm_s=0.03, seconds=0.1, groups=own_group
    )


async def test_every_request_is_answered_and_the_warm_up_is_not_counted() -> None:
    async with upstream(COUNTED) as port:
        sample = await load.run(job(port))

    assert sample.seconds >= 0.1
    assert 3 <= len(sample.latencies_us) == len(sample.first_bytes_us) < sample.sent
    assert all(
        0 < first <= last for first, last in zip(sample.first_bytes_us, sample.latencies_us, strict=True)
    )
    assert sample.decided == 0
    assert sample.cpu_s.keys() == {"own"}


async def test_answers_that_name_a_decision_are_counted() -> None:
    async with upstream(COUNTED.replace(b"x-a:", b"x-ai-policy-decision-id:")) as port:
        sample = await load.run(job(port))

    assert sample.decided == sample.sent


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'HTTP/1.1 429 No\r\ncontent-length: 17\r\n\r\n{"error":"later"}', "status 429.*later"),
        (COUNTED.replace(b'{"ok":true}', b"cut short.."), "status 200.*cut short"),
        (b"", "closed before"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "nothing announces"),
    ],
)
async def test_one_failed_request_ends_the_load_with_what_was_said(answer: bytes, said: str) -> None:
    async with upstream(COUNTED, COUNTED, answer) as port:
        with pytest.raises(BenchFailed, match=said):
            await load.run(job(port))


async def test_a_load_that_nobody_answers_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE_S", 0.05)
    async with upstream(COUNTED[:-1]) as port:
        with pytest.raises(BenchFailed, match="3 requests had no answer"):
            await load.run(job(port))


def test_cpu_time_of_a_group_includes_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        used = cpu.used_s({"both": process.pid, "nobody": 0x7FFFFFFF})
        process.communicate(b"\n")

    assert used["both"] >= 0.19
    assert used["nobody"] == 0


# --- rows

STREAM = EnvoySettings(usage="stream")


def read(text: str) -> Any:
    return yaml.safe_load(text)["static_resources"]


def manager(resources: Any) -> Any:
    return resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def routes(resources: Any) -> list[tuple[str, object]]:
    (host,) = manager(resources)["route_config"]["virtual_hosts"]
    return [(route["name"], route["match"]) for route in host["routes"]]


def clusters(resources: Any) -> list[str]:
    return [cluster["name"] for cluster in resources["clusters"]]


def test_the_row_without_policy_differs_by_the_policy_alone() -> None:
    given, bare = read(render_bootstrap(STREAM)), read(without_policy(render_bootstrap(STREAM)))

    assert routes(bare) == routes(given)
    assert ["ai_policy", *clusters(bare)] == clusters(given)
    assert [part["name"] for part in manager(bare)["http_filters"]] == ["envoy.filters.http.router"]
    for policys in ("ext_proc", "ai_protocol_manager", "typed_per_filter_config"):
        assert policys not in yaml.safe_dump(bare["clusters"] + manager(bare)["http_filters"])
        assert policys not in yaml.safe_dump(manager(bare)["route_config"])


def test_only_the_first_row_goes_without_the_filter() -> None:
    chains = [manager(read(bootstrap(row, replace(STREAM, usage=row.usage))))["http_filters"] for row in ROWS]

    with_filter = ["ai_policy" in [part["name"] for part in chain] for chain in chains]
    assert with_filter == [False, True, True, True]


def test_raised_limits_change_nothing_but_amounts(tmp_path: Path) -> None:
    for path in (ROOT / "policies").glob("*.yaml"):
        raised = out_of_reach(path.read_text())
        (tmp_path / path.name).write_text(raised)

        assert _without_amounts(raised) == _without_amounts(path.read_text())
    limits = policyset.load(tmp_path).limits
    assert {limit.ref.kind for limit in limits} == {"RateLimit", "UsageCap", "ConcurrencyLimit"}
    assert all(limit.spec.window(0).size >= 10**6 for limit in limits)


def _without_amounts(text: str) -> list[Any]:
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        spec = document["spec"]
        limit = spec.get("limit", {})
        spec["limit"] = {name: value if name == "per" else None for name, value in limit.items()}
        spec.pop("max", None)
    return documents


# --- figures


def cell(row: str, *, number: int = 1, latency_us: int = 1000, **cpu_s: float) -> Cell:
    sample = Sample(
        seconds=2.0,
        latencies_us=[latency_us] * 98 + [latency_us * 10] * 2,
        first_bytes_us=[latency_us // 2] * 100,
        cpu_s=cpu_s,
        load_cpu_s=0.5,
        machine_cpu_s=sum(cpu_s.values()) + 0.6,
        sent=120,
        decided=0,
    )
    return Cell(workload="chat", row=row, round=number, sample=sample, messages=480)


def summary(*cells: Cell) -> dict[tuple[str, str], figures.Figures]:
    return figures.summary(cells, baseline="alone", empty="empty")


@given(values=st.lists(st.integers(), min_size=1), share=st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_covers_its_share(values: list[int], share: float) -> None:
    found = figures.percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_a_row_is_compared_with_the_others_of_its_round() -> None:
    found = summary(
        cell("alone", envoy=0.02),
        cell("empty", latency_us=1500, envoy=0.04, sidecar=0.05),
        cell("ours", latency_us=3000, envoy=0.05, sidecar=0.2),
    )["chat", "ours"]

    median = {name: figure.median for name, figure in found.items()}
    assert median == pytest.approx(
        {
            "requests_per_s": 50,
            "p50_ms": 3,
            "p99_ms": 30,
            "first_byte_p50_ms": 1.5,
            "added_p50_ms": 2,
            "added_p99_ms": 20,
            "added_first_byte_p50_ms": 1,
            "sidecar_cpu_us": 2000,
            "sidecar_cpu_ratio": 4,
            "envoy_cpu_us": 500,
            "envoy_cpu_ratio": 2.5,
            "messages": 4,
            "load_cpu_percent": 25,
            "strangers_cpu_percent": 5,
        }
    )


def test_rounds_are_summed_up_by_their_median_and_extremes() -> None:
    found = summary(
        *(
            cell(row, number=number, latency_us=latency_us)
            for number, alone, ours in ((1, 1000, 1700), (2, 5000, 5100), (3, 1000, 1400))
            for row, latency_us in (("alone", alone), ("empty", alone), ("ours", ours))
        )
    )["chat", "ours"]

    assert found["added_p50_ms"].median == pytest.approx(0.4)
    assert found["added_p50_ms"].low == pytest.approx(0.1)
    assert found["added_p50_ms"].high == pytest.approx(0.7)
    assert found["p50_ms"] == Figure(median=1.7, low=1.4, high=5.1)


def test_a_ratio_to_nothing_measurable_is_absent() -> None:
    found = summary(
        cell("alone", envoy=0.0), cell("empty", sidecar=0.0), cell("ours", sidecar=0.1, envoy=0.1)
    )

    assert "sidecar_cpu_ratio" not in found["chat", "ours"]
    assert "envoy_cpu_ratio" not in found["chat", "ours"]


@pytest.mark.parametrize(
    ("sidecar", "decided", "messages"),
    [(Sidecar.NOBODY, 0, 4), (Sidecar.EMPTY, 0, 0), (Sidecar.OURS, 119, 480), (Sidecar.NOBODY, 120, 0)],
)
def test_requests_that_went_another_way_are_no_figures(sidecar: Sidecar, decided: int, messages: int) -> None:
    given = cell("any")
    strayed = replace(given, sample=replace(given.sample, decided=decided), messages=messages)

    with pytest.raises(BenchFailed, match="any: "):
        check(strayed, sidecar)


# --- the whole

MACHINE = Machine(cores=2, cpu="A CPU", kernel="6.1", envoy="1.40.0", python="3.11.7", grpcio="1.85.1")


def test_the_tables_show_every_row_and_unit() -> None:
    asked = workloads(8)
    cells = (
        replace(cell(row.name, envoy=0.1, sidecar=0.123), workload=workload.name)
        for workload in asked
        for row in ROWS
    )
    outcome = report.Report(
        machine=MACHINE,
        load_average=(0.5, 1.5),
        seconds=2,
        rounds=1,
        workloads=asked,
        figures=figures.summary(cells, baseline=ROWS[0].name, empty=ROWS[1].name),
    )
    text = StringIO()

    report.write(outcome, Console(file=text, width=report.WIDTH))

    shown = text.getvalue()
    assert "…" not in shown
    assert "2 cores of A CPU, Linux 6.1; Envoy 1.40.0, Python 3.11.7, grpcio 1.85.1" in shown
    assert "load average 0.50 before, 1.50 after" in shown
    for row in ROWS:
        assert sum(line.strip().startswith(row.name) for line in shown.splitlines()) == 1 + len(asked)
    assert shown.count("1,230 ±0") == len(asked) * len(ROWS)
    for heading in ("requests", "p50", "p99", "ms", "CPU us"):
        assert heading in shown


def test_what_is_faster_than_a_round_is_done_many_times_in_it() -> None:
    done: list[str] = []

    def turn(name: str, sleep_s: float) -> Turn:
        def run(count: int) -> None:
            done.append(name)
            time.sleep(sleep_s * count)

        return Turn(name=name, run=run)

    found = measure([turn("a", 0.0002), turn("b", 0.0008)], seconds=0.004, rounds=3)

    assert done[-6:] == ["a", "b"] * 3
    assert found["a"]["ratio"] == Figure(median=1, low=1, high=1)
    assert found["b"]["us"].low >= 800


def test_a_denied_decision_is_no_figure() -> None:
    policies = decisions.folder(2)
    nobody = replace(policies, objects=tuple(item for item in policies.objects if item.ref.kind != "ApiKey"))

    with pytest.raises(BenchFailed):
        decisions.Decider(nobody).decide(1)


def test_a_run_of_decisions_measures_every_row() -> None:
    parts = run((1, 3), (1, 20_000), seconds=0.002, rounds=2)
    text = StringIO()
    write(parts, Console(file=text, width=report.WIDTH))

    names = [list(part.rows) for part in parts]
    assert names[0] == ["1 policy", "1 policy, all asked", "3 policies", "3 policies, all asked"]
    assert names[1] == ["1 key", "20,000 keys", "20,000 keys, sliding window", "20,000 keys, calendar window"]
    if redis_store.is_there():
        assert names[2] == ["PING", "reserve and settle, 1 limit", "reserve and settle, 5 limits"]
    assert all(figures["us"].low > 0 for part in parts for figures in part.rows.values())
    assert 100 < parts[1].rows["20,000 keys"]["key_bytes"].median < 2_000
    assert "key_bytes" not in parts[1].rows["1 key"]
    for name in (name for part in names for name in part):
        assert name in text.getvalue()


def test_a_short_run_measures_every_row_under_every_workload() -> None:
    """The real processes; every request must be answered, and ours decide on theirs."""
    command = [sys.executable, "-m", "bench", "--seconds", "0.5", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)

    assert [row["name"] for row in said["rows"]] == [row.name for row in ROWS]
    assert [workload["name"] for workload in said["workloads"]] == ["chat_alone", "chat", "stream"]
    for workload in said["workloads"]:
        for row in ROWS:
            measured = {name: figure["median"] for name, figure in workload["rows"][row.name].items()}
            assert measured["requests_per_s"] > 0
            assert 0 < measured["p50_ms"] <= measured["p99_ms"]
            assert measured["envoy_cpu_us"] > 0
            assert ("sidecar_cpu_us" in measured) == (row.sidecar is not Sidecar.NOBODY)
            if row.sidecar is Sidecar.OURS:
                assert measured["sidecar_cpu_us"] > 0
        native = workload["rows"]["ours, native"]
        assert native["messages"]["median"] == 4
    stream = said["workloads"][-1]["rows"]
    assert stream["ours, stream"]["messages"]["median"] > 100
