"""What a deployment can set: flags, else `EXTPROC_*`, else these defaults.

Floor 3. The command line declares each with its unit and default; this room only checks values.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path

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
_PORT_DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `extproc serve` needs to know."""

    policies: Path
    grpc: str = "127.0.0.1:50051"  # HOST:PORT or unix:PATH
    admin_host: str = "127.0.0.1"
    admin_port: int = 8080
    admin_token: str = field(default="", repr=False)
    native_usage: bool = False
    deadline_s: float = 5.0  # for one verdict; below Envoy's message_timeout (10 s in envoy/)
    drain_s: float = 30.0  # for open streams after SIGTERM
    vocab: Path | None = None  # None: the user's cache directory
    state: Path | None = None  # None: what is learned is forgotten with the process
    store: str = "memory:"  # or a Redis URL: redis://, rediss://, unix://, redis+cluster://
    ledger: str = ""  # sqlite:PATH or a Postgres URL; empty: in `state` where that is given, else none
    retention_days: int = 30  # of records; counters are kept
    workers: int = 1
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
        if not self.admin_is_loopback and not self.admin_token:
            raise SettingsInvalid(
                f"--admin-host (EXTPROC_ADMIN_HOST) {self.admin_host!r} is not loopback: "
                "set EXTPROC_ADMIN_TOKEN to the bearer token that readers must send"
            )

    def _check_numbers(self) -> None:
        if not 0 <= self.admin_port < PORTS:
            raise SettingsInvalid(
                f"--admin-port (EXTPROC_ADMIN_PORT) is {self.admin_port}; set 0 to {PORTS - 1}"
            )
        if not 0 < self.deadline_s < math.inf:
            raise SettingsInvalid(
                f"--deadline-s (EXTPROC_DEADLINE_S) is {self.deadline_s:g}; set seconds above 0"
            )
        if not 0 <= self.drain_s < math.inf:
            raise SettingsInvalid(f"--drain-s (EXTPROC_DRAIN_S) is {self.drain_s:g}; set seconds, 0 or more")
        if self.threads < 1:
            raise SettingsInvalid(f"--threads (EXTPROC_THREADS) is {self.threads}; set 1 or more")

    @property
    def admin_is_loopback(self) -> bool:
        """Whether only this machine (or pod) can reach the admin port."""
        if self.admin_host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.admin_host).is_loopback
        except ValueError:
            return False


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
