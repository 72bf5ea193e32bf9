"""What a deployment can set: flags, else `EXTPROC_*`, else these defaults.

Floor 3. The command line declares each with its unit and default; this room only checks values.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from extproc.errors import SettingsInvalid

# Up to this a body is understood on the event loop, and a text counted there: 4 KiB take about a
# millisecond at worst (`python -m tests.measure.speed`; "0.0.0." counts at 5 MB/s). Handing
# work to a thread and back costs a tenth of that.
INLINE_BODY_BYTES = 4 * 1024
# Below this a part of an answer is parsed on the event loop: about half a millisecond of JSON.
INLINE_ANSWER_BYTES = 64 * 1024
# What the answers of all streams may hold together: four of the largest, or the images of some fifty.
HELD_ANSWERS_BYTES = 256 * 1024 * 1024

PORTS = 2**16
ADMIN_PORT = 8080
_PORT_DIGITS = 5

MEMORY = "memory:"
STORE_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
LEDGER_SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `extproc serve` needs to know."""

    policies: Path
    grpc: str = "127.0.0.1:50051"  # HOST:PORT or unix:PATH
    admin_host: str = "127.0.0.1"
    admin_port: int = ADMIN_PORT
    metrics_port: int | None = None  # of probes and metrics alone, on every address; None: the admin port's
    admin_token: str = field(default="", repr=False)
    trace_url: str = ""  # of a trace in a browser, with {trace_id} in it; empty: the console links to none
    native_usage: bool = False
    deadline_s: float = 5.0  # for one verdict; below Envoy's message_timeout (10 s in envoy/)
    drain_s: float = 30.0  # for open streams after SIGTERM
    vocab: Path | None = None  # None: the user's cache directory
    state: Path | None = None  # None: what is learned is forgotten with the process
    # Both URLs may carry a password.
    store: str = field(default=MEMORY, repr=False)  # or a Redis URL: redis://, rediss://, unix://, ...
    store_prefix: str = "ai_policy"  # of every name in it; sidecars that share counters share the prefix
    store_timeout_ms: int = 50  # for one answer of it
    ledger: str = field(default="", repr=False)  # sqlite:PATH or a Postgres URL; empty: see `ledger_url`
    instance: str = ""  # this sidecar's name in the ledger; empty: by its address, see `keeping`
    retention_days: int = 35  # of records; counters are kept
    workers: int = 1  # processes, each an endpoint of its own for Envoy
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    threads: int = 2  # that understand large bodies

    def __post_init__(self) -> None:
        check_grpc_address(self.grpc)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsInvalid("--tls-cert and --tls-key (EXTPROC_TLS_CERT, EXTPROC_TLS_KEY) go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsInvalid(
                "--tls-client-ca (EXTPROC_TLS_CLIENT_CA) needs --tls-cert and --tls-key "
                "(EXTPROC_TLS_CERT, EXTPROC_TLS_KEY)"
            )
        if self.tls_cert is not None and self.grpc.startswith("unix:"):
            raise SettingsInvalid(
                "--tls-cert (EXTPROC_TLS_CERT) needs a TCP address in --grpc (EXTPROC_GRPC)"
            )
        self._check_numbers()
        check_store(self.store)
        check_ledger(self.ledger)
        self._check_workers()
        if self.trace_url and not _is_trace_url(self.trace_url):
            raise SettingsInvalid(
                f"--trace-url (EXTPROC_TRACE_URL) is {self.trace_url!r}; set a URL with {{trace_id}} in it, "
                "such as http://127.0.0.1:16686/trace/{trace_id}"
            )
        if not self.admin_is_loopback and not self.admin_token:
            raise SettingsInvalid(
                f"--admin-host (EXTPROC_ADMIN_HOST) {self.admin_host!r} is not loopback: "
                "set EXTPROC_ADMIN_TOKEN to the bearer token that readers must send"
            )

    def _check_numbers(self) -> None:
        for name, port in (("admin", self.admin_port), ("metrics", self.metrics_port)):
            if port is not None and not 0 <= port < PORTS:
                variable = f"EXTPROC_{name.upper()}_PORT"
                raise SettingsInvalid(f"--{name}-port ({variable}) is {port}; set 0 to {PORTS - 1}")
        if not 0 < self.deadline_s < math.inf:
            raise SettingsInvalid(
                f"--deadline-s (EXTPROC_DEADLINE_S) is {self.deadline_s:g}; set seconds above 0"
            )
        if not 0 <= self.drain_s < math.inf:
            raise SettingsInvalid(f"--drain-s (EXTPROC_DRAIN_S) is {self.drain_s:g}; set seconds, 0 or more")
        for name, number in (
            ("threads", self.threads),
            ("workers", self.workers),
            ("retention-days", self.retention_days),
            ("store-timeout-ms", self.store_timeout_ms),
        ):
            if number < 1:
                variable = f"EXTPROC_{name.upper().replace('-', '_')}"
                raise SettingsInvalid(f"--{name} ({variable}) is {number}; set 1 or more")

    def _check_workers(self) -> None:
        if self.workers == 1:
            return
        if self.store == MEMORY:
            raise SettingsInvalid(
                f"--workers (EXTPROC_WORKERS) is {self.workers}, and --store (EXTPROC_STORE) is {MEMORY}: "
                "every worker would allow the whole of each limit; set --store to a Redis URL, "
                "such as redis://127.0.0.1:6379/0"
            )
        if self.grpc.endswith(":0") and not self.grpc.startswith("unix:"):
            raise SettingsInvalid(
                f"--grpc (EXTPROC_GRPC) is {self.grpc!r}: name a port where --workers (EXTPROC_WORKERS) "
                f"is {self.workers}; each worker takes the next one"
            )
        check_grpc_address(worker_addresses(self.grpc, self.workers)[-1])

    @property
    def ledger_url(self) -> str:
        """The ledger as asked for, else a file in `state`; empty: none is kept."""
        if self.ledger or self.state is None:
            return self.ledger
        return f"sqlite:{self.state / 'ledger.sqlite'}"

    def for_worker(self, number: int) -> Self:
        """The settings of one process: the endpoint is its own, ledger and store are everybody's."""
        return replace(
            self,
            grpc=worker_addresses(self.grpc, self.workers)[number],
            instance=self.instance and f"{self.instance}/worker-{number}",
            # Only the supervisor reaches its admin, by a socket file.
            admin_host="127.0.0.1",
            metrics_port=None,
            ledger=self.ledger_url,
            state=None if self.state is None else self.state / f"worker-{number}",
            workers=1,
        )

    @property
    def admin_is_loopback(self) -> bool:
        """Whether only this machine (or pod) can reach the admin port."""
        if self.admin_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.admin_host).is_loopback
        except ValueError:
            return False


def _is_trace_url(url: str) -> bool:
    # What a console would link to: nothing that a browser runs.
    return url.startswith(("http://", "https://")) and "{trace_id}" in url


def check_grpc_address(address: str) -> None:
    """Raise `SettingsInvalid` unless this is `unix:PATH` or `HOST:PORT`."""
    accepted = f"--grpc (EXTPROC_GRPC) is {address!r}; set unix:PATH or HOST:PORT"
    if address.startswith("unix:"):
        if not address.removeprefix("unix:"):
            raise SettingsInvalid(accepted)
        return
    host, _, port = address.rpartition(":")
    # `isdigit` alone is true of superscripts, which are no number.
    is_port = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS and int(port) < PORTS
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or not is_port or is_bare_ipv6:
        raise SettingsInvalid(accepted)


def worker_addresses(address: str, workers: int) -> tuple[str, ...]:
    """Where each worker listens: `unix:a.sock` becomes `unix:a.0.sock`, ..., a port the ports from it on.

    One process listens on the address itself. Envoy needs an endpoint for each: it opens few
    connections, and behind one address some of the processes would get none of them.
    """
    if workers == 1:
        return (address,)
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        return tuple(f"unix:{path.with_suffix(f'.{number}{path.suffix}')}" for number in range(workers))
    host, _, port = address.rpartition(":")
    return tuple(f"{host}:{int(port) + number}" for number in range(workers))


def check_store(url: str) -> None:
    """Raise `SettingsInvalid` unless this is `memory:` or the URL of a Redis."""
    if url == MEMORY:
        return
    setting = "--store (EXTPROC_STORE)"
    accepted = f"set {MEMORY}, redis://, rediss://, redis+cluster:// or rediss+cluster:// with a host, or unix:///PATH"
    scheme = _scheme(url, STORE_SCHEMES, setting, accepted)
    try:
        parts = urlsplit(url)
        is_place = bool(parts.path) if scheme == "unix" else _is_server(parts)
    except ValueError:
        is_place = False
    if not is_place:
        raise SettingsInvalid(
            f"{setting} is a {scheme}:// URL that names no host, port, path or database; {accepted}"
        )


def _is_server(parts: SplitResult) -> bool:
    """Whether a Redis URL names one; a database that is no number would silently be number 0."""
    database = parts.path.strip("/")
    return bool(parts.hostname) and parts.port != 0 and (not database or database.isdecimal())


def check_ledger(url: str) -> None:
    """Raise `SettingsInvalid` unless this is empty, `sqlite:PATH` or a Postgres URL, which libpq reads."""
    if not url:
        return
    setting = "--ledger (EXTPROC_LEDGER)"
    accepted = "set sqlite:PATH, postgresql:// or postgres://"
    if not url.startswith("sqlite:"):
        _scheme(url, LEDGER_SCHEMES, setting, accepted)
    elif not url.removeprefix("sqlite:"):
        raise SettingsInvalid(f"{setting} is 'sqlite:' without a path; {accepted}")


def _scheme(url: str, known: tuple[str, ...], setting: str, accepted: str) -> str:
    """The URL's scheme. Messages never repeat the URL: it may carry a password."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise SettingsInvalid(f"{setting} is no URL; {accepted}")
    if scheme not in known:
        raise SettingsInvalid(f"{setting} has an unknown scheme; {accepted}")
    return scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlace:
    """Which of a supervisor's workers a process is, and the private folder that both of them use."""

    number: int
    folder: Path

    @property
    def name(self) -> str:
        """The same for every process that takes this place, one after another."""
        return f"worker-{self.number}"

    @property
    def admin_socket(self) -> Path:
        """Where the worker's admin listens, for the supervisor alone."""
        return self.folder / f"{self.name}.sock"

    @property
    def last_metrics(self) -> Path:
        """Where a worker that ends in order leaves what it counted."""
        return self.folder / f"{self.name}.metrics"
