"""What can be set, and what each wrong combination is told."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import SettingsInvalid
from extproc.settings import (
    Settings,
    check_grpc_address,
    check_ledger,
    check_store,
    worker_addresses,
)

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
    "no worker": ({"workers": 0}, ("--workers", "EXTPROC_WORKERS")),
    "no day": ({"retention_days": 0}, ("--retention-days", "EXTPROC_RETENTION_DAYS")),
    "no time for the store": ({"store_timeout_ms": 0}, ("--store-timeout-ms", "EXTPROC_STORE_TIMEOUT_MS")),
    "workers with counters of their own": (
        {"workers": 2},
        ("--workers", "EXTPROC_WORKERS", "--store", "EXTPROC_STORE", "memory:", "redis://"),
    ),
    "workers on no port in particular": (
        {"workers": 2, "store": "redis://h", "grpc": "127.0.0.1:0"},
        ("--grpc", "EXTPROC_GRPC", "--workers", "EXTPROC_WORKERS"),
    ),
    "workers beyond the last port": (
        {"workers": 3, "store": "redis://h", "grpc": "127.0.0.1:65534"},
        ("--grpc", "EXTPROC_GRPC", "65536"),
    ),
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


# --- stores and ledgers


@pytest.mark.parametrize(
    "url",
    [
        *("memory:", "redis://h", "redis://:pw@h:6379/0", "rediss://u:pw@h:6380"),
        *("redis+cluster://h:7000", "rediss+cluster://u:pw@h:7000"),
        *("unix:///run/redis.sock", "unix://:pw@/run/redis.sock?db=1"),
    ],
)
def test_a_store_that_can_be_reached_is_taken(url: str) -> None:
    assert settings(store=url).store == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "memory", "redis:h", "redis://", "redis://:6379", "redis://h:port", "redis://h:65536"),
        *(
            "redis://h:0",
            "redis://h/counters",
            "unix://",
            "http://h",
            f"mongodb://u:{SECRET}@h",
            f"redis://:{SECRET}@h:port",
            SECRET,
        ),
    ],
)
def test_any_other_store_is_told_what_is_accepted_and_never_repeated(url: str) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(store=url)

    for word in (
        "--store",
        "EXTPROC_STORE",
        "memory:",
        "redis://",
        "rediss://",
        "redis+cluster://",
        "unix://",
    ):
        assert word in str(invalid.value)
    assert SECRET not in str(invalid.value)


@pytest.mark.parametrize(
    "url", ["", "sqlite:/l.sqlite", "sqlite:l", "postgresql://u:pw@h/db", "postgres:///db"]
)
def test_a_ledger_that_can_be_opened_is_taken(url: str) -> None:
    assert settings(ledger=url).ledger == url


@pytest.mark.parametrize("url", ["sqlite:", "file", "postgresql:h", f"mysql://u:{SECRET}@h/db", SECRET])
def test_any_other_ledger_is_told_what_is_accepted_and_never_repeated(url: str) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(ledger=url)

    for word in ("--ledger", "EXTPROC_LEDGER", "sqlite:PATH", "postgresql://"):
        assert word in str(invalid.value)
    assert SECRET not in str(invalid.value)


@given(st.text(max_size=30))
def test_whatever_is_written_as_a_url_is_taken_or_refused_by_its_own_error(url: str) -> None:
    for check in (check_store, check_ledger):
        try:
            check(url)
        except SettingsInvalid:
            continue


def test_passwords_are_in_no_representation() -> None:
    said = repr(settings(store=f"redis://:{SECRET}@h", ledger=f"postgresql://u:{SECRET}@h/db"))

    assert SECRET not in said


def test_the_ledger_is_in_the_state_folder_unless_it_is_somewhere_else() -> None:
    assert settings().ledger_url == ""
    assert settings(state=Path("/s")).ledger_url == "sqlite:/s/ledger.sqlite"
    assert settings(state=Path("/s"), ledger="sqlite:/l").ledger_url == "sqlite:/l"


# --- workers


@pytest.mark.parametrize(
    ("address", "each"),
    [
        ("unix:/run/a.sock", ("unix:/run/a.0.sock", "unix:/run/a.1.sock")),
        ("unix:run/a", ("unix:run/a.0", "unix:run/a.1")),
        ("127.0.0.1:50051", ("127.0.0.1:50051", "127.0.0.1:50052")),
        ("[::1]:7", ("[::1]:7", "[::1]:8")),
    ],
)
def test_every_worker_listens_at_an_address_of_its_own(address: str, each: tuple[str, ...]) -> None:
    assert worker_addresses(address, 2) == each
    assert worker_addresses(address, 1) == (address,)


def test_a_worker_shares_the_ledger_and_keeps_what_it_learned_apart() -> None:
    shared = settings(
        workers=2, store="redis://h", grpc="h:5", state=Path("/s"), admin_host="0.0.0.0", admin_token="t"
    )
    worker = shared.for_worker(1)

    assert worker.grpc == "h:6"
    assert worker.ledger_url == shared.ledger_url
    assert worker.store == shared.store
    assert worker.state == Path("/s/worker-1")
    assert worker.workers == 1
    assert worker.admin_is_loopback
