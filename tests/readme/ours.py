"""Questions to a running stack, as its own interfaces answer them."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2 as httpx

from tests.e2e.stack import Stack

HELLO = [{"role": "user", "content": "Say hi."}]
PATIENCE_S = 60.0  # on a busy machine; exporters alone wait for seconds


def exposition(stack: Stack) -> str:
    """The sidecar's metrics."""
    return httpx.get(f"{stack.admin_url}/metrics").text


def client(stack: Stack, key: str = "sk-demo") -> httpx.Client:
    """A caller with this key."""
    return httpx.Client(
        base_url=stack.gateway_url, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=30
    )


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return once `true`."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
