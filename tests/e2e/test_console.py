"""The console in a real browser, beside a real gateway: why was this blocked, in three pages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.console.screen import Seen
from tests.e2e.stack import Stack

POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-o1-pro}
spec: {effect: deny, match: request.model == "o1-pro", description: One model is for nobody.}
"""
CHROMIUM = shutil.which("chromium")


@dataclass(frozen=True, slots=True)
class Browser:
    """Chromium without a window; whatever it complains of fails the test."""

    folder: Path

    def open(self, url: str) -> Seen:
        assert CHROMIUM is not None
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
        profile = f"--user-data-dir={self.folder}"
        command = [CHROMIUM, *flags, profile, "--enable-logging=stderr", "--dump-dom", url]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        complaints = [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
        assert complaints == []
        return Seen(shown.stdout)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path / "browser")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    ledger = {"EXTPROC_LEDGER": f"sqlite:{tmp_path / 'ledger.sqlite'}"}
    with Stack(tmp_path, policies={"all.yaml": POLICIES}, environment=ledger) as started:
        yield started


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_person_finds_out_why_a_request_was_blocked(stack: Stack, browser: Browser) -> None:
    with httpx.Client(base_url=stack.gateway_url, timeout=30) as client:
        statuses = [
            client.post(
                "/v1/chat/completions",
                json={"model": model, "messages": [{"role": "user", "content": "prompt-canary"}]},
            ).status_code
            for model in ("gpt-4o-mini", "o1-pro")
        ]
    assert statuses == [200, 403]

    overview = browser.open(f"{stack.admin_url}/")
    assert "Ready" in overview.text
    decision = browser.open(stack.admin_url + overview.links["denied: access_denied"])
    assert "Denied with HTTP 403 by AccessRule/no-o1-pro" in decision.text
    assert "One model is for nobody." in decision.text
    usage = browser.open(f"{stack.admin_url}{overview.links['Usage']}?by=model")
    assert "gpt-4o-mini" in usage.links
    assert "Total 2 1 0" in usage.text
    assert not any("prompt-canary" in page.html for page in (overview, decision, usage))
