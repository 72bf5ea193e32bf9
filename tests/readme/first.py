"""One denied and one allowed request, from the command to the trace."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from textwrap import TextWrapper
from typing import Any

from demo.plan import Plan
from demo.up import announcement
from tests.e2e.otlp import OtlpReceiver, ReceivedSpan
from tests.e2e.stack import Stack
from tests.readme.markdown import fenced
from tests.readme.normal import Normal
from tests.readme.ours import PATIENCE_S, exposition, wait_until

MODELS = ("o1-pro", "gpt-4o-mini")
GATEWAY = "http://127.0.0.1:10000"
WIDTH = 120
# What a process says of itself, and what Envoy asks of it when it likes, is not of these requests.
_OF_OTHERS = tuple(
    f"ai_policy_{name}"
    for name in (
        *("streams_active", "health_checks", "ledger_", "eventloop_", "build_info", "telemetry_"),
        *("policy_last_load", "policy_loaded", "policy_objects", "policy_revision"),
    )
)
KINDS = {1: "internal", 2: "server", 3: "client"}


def blocks(stack: Stack, receiver: OtlpReceiver) -> dict[str, str]:
    """Everything that is to be seen of both; the stack must be fresh."""
    normal = Normal({stack.gateway_url: GATEWAY, stack.demo_url.removeprefix("http://"): "127.0.0.1:10100"})
    denied, allowed = (_ask(stack, model) for model in MODELS)
    wait_until(lambda: "ai_policy_settlements_total{" in exposition(stack), "a settlement")
    metrics = "\n".join(_metrics(exposition(stack)))
    entry = _entry(stack.access_log(2)[0])
    trees = [tree(receiver, _decision_id(denied), 3), tree(receiver, _decision_id(allowed), 5)]
    texts = {
        "denied-request": (_command(MODELS[0]), "sh"),
        "denied-answer": (_indented(denied), "http"),
        "denied-access-log": (entry, "json"),
        "denied-trace": ("\n".join(draw(trees[0], is_shown=_is_policys)), "text"),
        "denied-log": (_log_line(stack), "json"),
        "allowed-answer": (allowed.partition("\n\n")[0], "http"),
        "allowed-trace": ("\n".join(draw(trees[1], is_shown=_is_usage)), "text"),
        "metrics": (metrics, "text"),
    }
    # Wrapped last: ids and times change their length on the way.
    return {name: fenced(wrapped(normal.text(text)), language) for name, (text, language) in texts.items()}


def _command(model: str) -> str:
    """The first command that `make up` prints for this model, an option a line."""
    commands = [line.strip() for line in announcement(Plan.read({})).splitlines() if "curl " in line]
    command = next(each for each in commands if json.dumps(model) in each)
    return re.sub(r" (?=-[Hd] )", " \\\\\n  ", command)


def _ask(stack: Stack, model: str) -> str:
    command = _command(model).replace(GATEWAY, stack.gateway_url)
    ran = subprocess.run(["bash", "-c", command], capture_output=True, check=True, text=True)
    return ran.stdout.replace("\r\n", "\n")


def _decision_id(answer: str) -> str:
    found = re.search(r"^x-ai-policy-decision-id: (.*)$", answer, re.MULTILINE)
    assert found, "an answer without the id of its decision"
    return found[1]


def _indented(answer: str) -> str:
    head, _, body = answer.partition("\n\n")
    return f"{head}\n\n{json.dumps(json.loads(body), indent=2)}"


def wrapped(text: str) -> str:
    """The text with its lines of JSON or of attributes wrapped, and never between a name and its value."""
    return "\n".join(
        _wrap(line) if line.startswith('{"') or "  . " in line else line for line in text.splitlines()
    )


def _wrap(line: str) -> str:
    indent = line[: line.find(".") + 2] if line.startswith(" ") else ""
    wrapper = TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(line.replace('": ', '":\N{NO-BREAK SPACE}')).replace("\N{NO-BREAK SPACE}", " ")


def _entry(entry: dict[str, Any]) -> str:
    """One entry of the access log; what is zero in `ai_policy` is left out."""
    entry["ai_policy"] = {name: value for name, value in entry["ai_policy"].items() if value}
    return json.dumps(entry)


def _log_line(stack: Stack) -> str:
    lines = (stack.folder / "sidecar.log").read_text().splitlines()
    return next(line for line in lines if '"message": "ai_policy.decision"' in line)


def _metrics(text: str) -> Iterator[str]:
    """What both requests counted, without buckets and sums."""
    for line in text.splitlines():
        if line.startswith(_OF_OTHERS):
            continue
        is_ours = line.startswith(("ai_policy_", "gen_ai_")) and not line.endswith(" 0.0")
        if is_ours and "_bucket{" not in line and "_sum{" not in line:
            yield line


def tree(receiver: OtlpReceiver, decision_id: str, count: int) -> list[ReceivedSpan]:
    """The spans of the trace that this decision is in, once there are so many, in order of their start."""

    def tree(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        ours = {s.trace_id for s in spans if s.attributes.get("ai_policy.decision.id") == decision_id}
        return sorted((s for s in spans if s.trace_id in ours), key=lambda span: span.start_ns)

    return tree(receiver.wait_for(lambda spans: len(tree(spans)) == count, PATIENCE_S))


def _is_policys(span: ReceivedSpan, name: str) -> bool:
    """Whether the sidecar is where this attribute comes from."""
    return span.service == "extproc" or name.startswith("ai_policy.")


def _is_usage(_: ReceivedSpan, name: str) -> bool:
    return name == "ai_policy.findings" or ".usage." in name


def draw(
    spans: list[ReceivedSpan],
    parent_id: str = "",
    indent: str = "",
    *,
    is_shown: Callable[[ReceivedSpan, str], bool],
) -> Iterator[str]:
    """The spans as a tree, each with the attributes that are to be shown."""
    for span in (each for each in spans if each.parent_id == parent_id):
        yield f"{indent}{span.name}   ({span.service}, {KINDS[span.kind]})"
        shown = {name: value for name, value in sorted(span.attributes.items()) if is_shown(span, name)}
        scalars = " ".join(f"{name}={value}" for name, value in shown.items() if not isinstance(value, list))
        if scalars:
            yield f"{indent}  . {scalars}"
        for name, value in shown.items():
            if isinstance(value, list):
                yield from (f"{indent}  . {name}=", *(f"{indent}      {item}" for item in value))
        yield from draw(spans, span.span_id, f"{indent}  ", is_shown=is_shown)
