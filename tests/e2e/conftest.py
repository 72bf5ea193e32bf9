"""Stacks of real parts, started once and shared; each test is a caller with a team of its own."""

import re
from collections.abc import Iterator

import pytest

from tests.e2e import policies
from tests.e2e.callers import Caller, call
from tests.e2e.otlp import OtlpReceiver
from tests.e2e.scripted import Scene, ScriptedProvider, scripted_provider
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


STACKS = ("native-1.40.0", "stream-1.40.0", "stream-1.39.3", "stream-1.38.3")


@pytest.fixture(scope="session", params=STACKS)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver
) -> Iterator[Stack]:
    """envoy/envoy.yaml's stack (Envoy reads the usage) and envoy/filter.yaml's (the session does)."""
    usage, _, version = request.param.partition("-")
    with Stack(
        tmp_path_factory.mktemp(request.param),
        envoy=version,
        usage=usage,
        policies=policies.FILES,
        otlp_endpoint=receiver.endpoint,
    ) as started:
        yield started


SCENES = ("native-1.40.0", "stream-1.38.3")


@pytest.fixture(scope="session")
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider() as started:
        yield started


@pytest.fixture(scope="session", params=SCENES)
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider
) -> Iterator[Scene]:
    """A stack whose provider answers what the test wrote."""
    usage, _, version = request.param.partition("-")
    with Stack(
        tmp_path_factory.mktemp(request.param),
        envoy=version,
        usage=usage,
        policies=policies.FILES,
        provider_port=provider.port,
        edit=close_soon,
    ) as stack:
        yield Scene(stack=stack, provider=provider)


def close_soon(bootstrap: str) -> str:
    """Envoy waits a second before it closes a connection whose answer was cut; many of them here."""
    at = r"^( *)stat_prefix: gateway$"
    return re.sub(at, r"\g<0>\n\g<1>delayed_close_timeout: 0.05s", bootstrap, count=1, flags=re.MULTILINE)


@pytest.fixture
def caller(stack: Stack) -> Caller:
    return call(stack)
