"""Who asks in a test: callers with teams of their own, and what the sidecar settled for them."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e import policies
from tests.e2e.stack import Stack

_numbers: defaultdict[Path, Iterator[int]] = defaultdict(itertools.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One caller of one stack, with the official SDKs pointed at it."""

    stack: Stack
    key: str
    team: str
    untouched: int  # what a probe is told while nothing was used

    def openai(self, **headers: str) -> Any:
        """An `openai.OpenAI`; untyped, because its overloads refuse plain dictionaries."""
        return openai.OpenAI(
            base_url=f"{self.stack.gateway_url}/v1",
            api_key=self.key,
            max_retries=0,
            default_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def anthropic(self, **headers: str) -> Any:
        """An `anthropic.Anthropic`, untyped for the same reason."""
        return anthropic.Anthropic(
            base_url=self.stack.gateway_url,
            api_key=self.key,
            max_retries=0,
            default_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def http(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.stack.gateway_url,
            headers={"authorization": f"Bearer {self.key}"} | headers,
            timeout=30,
        )

    def tokens_used(self) -> int:
        """What the team's budget has lost so far, as the gateway's own headers say.

        The probe reserves as much as the first one of its team did, and is reported as zero tokens.
        """
        return self.untouched - self._tokens_left()

    def _tokens_left(self) -> int:
        with self.http(**{"x-demo-fault": "usage=zero"}) as client:
            body = {"model": "gpt-4o-mini", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
            answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return int(answer.headers["x-ratelimit-remaining-tokens"])


def newcomer(stack: Stack) -> Caller:
    """A caller whose team nobody else is in, and who has asked nothing yet."""
    number = next(_numbers[stack.folder])
    return Caller(stack=stack, key=policies.key(number), team=policies.team(number), untouched=0)


def call(stack: Stack) -> Caller:
    """A newcomer who knows what its team may use."""
    fresh = newcomer(stack)
    return replace(fresh, untouched=fresh._tokens_left())


def settlements(stack: Stack) -> Counter[str]:
    """How many settlements there were by basis, whoever the provider was."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{stack.admin_url}/metrics").text):
        for sample in family.samples:
            if sample.name == "ai_policy_settlements_total":
                counts[sample.labels["basis"]] += int(sample.value)
    return counts


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test on these stacks alone."""
    return pytest.mark.parametrize("stack", names, indirect=True, scope="session")
