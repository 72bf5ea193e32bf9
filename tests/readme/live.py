"""The blocks that need the product itself: two stacks with the sample policies, one a usage mode.

`first` shows two requests in full; `endings` and `inputs` send the rest, `questions` a thousand more; all of
them are put in order here.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.e2e.otlp import OtlpReceiver
from tests.e2e.stack import Stack
from tests.readme import budgets, endings, first, inputs, questions, telemetry
from tests.readme.markdown import ROOT

POLICIES = ROOT / "policies"


def blocks() -> dict[str, str]:
    """Each block's name and text. Raises what the stacks raise where they do not start."""
    with ExitStack() as running:
        receiver = running.enter_context(OtlpReceiver())
        scratch = Path(running.enter_context(TemporaryDirectory()))
        for usage in ("native", "stream"):
            (scratch / usage).mkdir()
        native = running.enter_context(
            Stack(
                scratch / "native",
                policies=POLICIES,
                usage="native",
                otlp_endpoint=receiver.endpoint,
                environment=budgets.environment(scratch),
            )
        )
        stream = running.enter_context(Stack(scratch / "stream", policies=POLICIES, usage="stream"))
        # In this order: the first requests meet limits that nobody has used, the last ones a full limit
        # and then no sidecar.
        found = first.blocks(native, receiver)
        found["budgets"] = budgets.block(native)
        found["endings"] = endings.table_of({"stream": stream, "native": native})
        answered = inputs.rows(native)
        found |= telemetry.blocks(native, receiver)
        answered += inputs.rows_without_sidecar(native)
        (scratch / "mixed").mkdir()
        return found | {"inputs": inputs.table_of(answered)} | questions.blocks(scratch / "mixed")
