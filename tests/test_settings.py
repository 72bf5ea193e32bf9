"""What can be set, and what each wrong combination is told."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import SettingsInvalid
from extproc.settings import Settings, check_grpc_address

SECRET = "token-canary-51c2"


def settings(**changes: Any) -> Settings:
    return Settings(policies=Path("policies"), **changes)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a certificate without its key": (
        {"tls_cert": Path("c")},
        ("--tls-cert", "--tls-key", "EXTPROC_TLS_CERT", "EXTPROC_TLS_KEY"),
    ),
    "a key without its certificate": (
        {"tls_key": Path("k")},
        ("--tls-cert", "--tls-key", "EXTPROC_TLS_CERT", "EXTPROC_TLS_KEY"),
    ),
    "a client CA without TLS": (
        {"tls_client_ca": Path("ca")},
        ("--tls-client-ca", "EXTPROC_TLS_CLIENT_CA", "--tls-cert", "EXTPROC_TLS_CERT"),
    ),
    "TLS on a socket file": (
        {"tls_cert": Path("c"), "tls_key": Path("k"), "grpc": "unix:/run/ai.sock"},
        ("--tls-cert", "EXTPROC_TLS_CERT", "--grpc", "EXTPROC_GRPC"),
    ),
    "an open admin port without a token": (
        {"admin_host": "0.0.0.0"},
        ("--admin-host", "EXTPROC_ADMIN_HOST", "EXTPROC_ADMIN_TOKEN"),
    ),
    "an admin port beyond the last": ({"admin_port": 65536}, ("--admin-port", "EXTPROC_ADMIN_PORT", "65535")),
    "a negative admin port": ({"admin_port": -1}, ("--admin-port", "EXTPROC_ADMIN_PORT")),
    "no time for a verdict": ({"deadline_s": 0.0}, ("--deadline-s", "EXTPROC_DEADLINE_S")),
    "a deadline that is no number": ({"deadline_s": math.nan}, ("--deadline-s", "EXTPROC_DEADLINE_S")),
    "a deadline that never comes": ({"deadline_s": math.inf}, ("--deadline-s", "EXTPROC_DEADLINE_S")),
    "a negative drain": ({"drain_s": -1.0}, ("--drain-s", "EXTPROC_DRAIN_S")),
    "a drain without end": ({"drain_s": math.inf}, ("--drain-s", "EXTPROC_DRAIN_S")),
    "no thread": ({"threads": 0}, ("--threads", "EXTPROC_THREADS")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_combination_names_every_flag_and_variable_it_is_about(name: str) -> None:
    changes, named = WRONG[name]

    with pytest.raises(SettingsInvalid) as invalid:
        settings(**changes)

    assert [word for word in named if word not in str(invalid.value)] == []


@pytest.mark.parametrize(
    "address",
    [
        *("", "unix:", "nowhere", ":50051", "host:", "host:http", "host:-1", "host:65536", "host:1e3"),
        "host:" + "0" * 5000,
        # int() refuses the one and takes the other; neither is a port.
        *("host:²", "host:\u0665"),
        # Which of the colons starts the port?
        *("::1:50051", "::"),
    ],
)
def test_an_address_that_grpc_cannot_use_is_told_what_is_accepted(address: str) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(grpc=address)

    for word in ("--grpc", "EXTPROC_GRPC", repr(address), "unix:PATH", "HOST:PORT"):
        assert word in str(invalid.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:65535", "[::1]:50051", "[::]:1", "unix:a", "unix:/run/a.sock"]
)
def test_an_address_that_grpc_can_use_is_taken(address: str) -> None:
    assert settings(grpc=address).grpc == address


@given(st.text(max_size=30))
def test_whatever_is_written_as_an_address_is_taken_or_refused_by_its_own_error(address: str) -> None:
    try:
        check_grpc_address(address)
    except SettingsInvalid:
        return

    assert address.startswith("unix:") or address.rpartition(":")[2].isdecimal()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert settings(admin_host=host).admin_is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.internal", "127.1", ""])
def test_whatever_may_be_reached_from_elsewhere_needs_a_token(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="EXTPROC_ADMIN_TOKEN"):
        settings(admin_host=host)

    assert not settings(admin_host=host, admin_token=SECRET).admin_is_loopback


def test_the_token_is_in_no_representation_and_no_error() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(admin_token=SECRET, deadline_s=-1.0)

    assert SECRET not in str(invalid.value)
    assert SECRET not in repr(settings(admin_token=SECRET))
