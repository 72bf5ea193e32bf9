"""One Redis, Valkey or Redis Cluster, as far as one script call at a time: time-outs, retry, breaker.

Floor 3. Knows nothing of counters. A call is tried twice, for whoever timed out cannot know whether it
was done: what is called must be idempotent. Connections are made anew where they broke. No message or
log line here carries what a server said, or a URL: both may hold a credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from extproc.errors import SettingsInvalid, StoreUnavailable
from extproc.store.breaker import CircuitBreaker

log = logging.getLogger(__name__)

TIMEOUT_S = 0.05
TRIES = 2
# Each carries one call at a time; a call takes a fraction of a millisecond.
CONNECTIONS = 64
_CLUSTER = "+cluster"

# What was not answered may or may not have been done, and is asked once more.
_UNANSWERED: Final = (TimeoutError, exceptions.TimeoutError, exceptions.ConnectionError, OSError)
# What was refused was not done, and will be refused again; some of these are connection errors by birth.
_REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.BusyLoadingError,
    exceptions.ResponseError,
    exceptions.RedisClusterException,
)
_PLAIN_ERROR = "ERR"
_DEMOTED = "READONLY"
# What Lua says of our own script holds nobody's words.
_OURS, _LONGEST_KIND = "user_script:", 200
# Of longer commands Redis says it so, as an error of the protocol.
_UNAUTHENTICATED = "unauthenticated"
CREDENTIALS: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "AuthenticationError"})


class Link:
    """Calls of one script on one server, each within `TRIES` times `timeout_s`.

    `name` is how messages call the server: host and port, never a credential.
    """

    def __init__(
        self,
        url: str,
        script: str,
        *,
        timeout_s: float = TIMEOUT_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = _client(url)
        self.name = _name(url)
        self.last_error = ""
        self.breaker = CircuitBreaker(clock_s)
        self._script = script
        self._digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._timeout_s = timeout_s
        self._is_away = False

    @property
    def is_connected(self) -> bool:
        """Whether the last call was answered."""
        return not self._is_away

    async def call(self, keys: tuple[str, ...], arguments: tuple[bytes | str | int, ...]) -> Any:
        """The script's answer. Raises `StoreUnavailable`; the outcome is unknown then."""
        if not self.breaker.allows():
            raise StoreUnavailable(f"Redis at {self.name} is left alone for a moment: {self.last_error}")
        kind = ""
        try:
            for _ in range(TRIES):
                try:
                    async with asyncio.timeout(self._timeout_s):
                        answer = await self._evaluate(keys, arguments)
                except _REFUSED as error:
                    kind = _kind(error)
                    break
                except _UNANSWERED as error:
                    kind = _kind(error)
                else:
                    self._answered()
                    return answer
        except BaseException:
            self.breaker.abandoned()
            raise
        self._failed(kind)
        if kind == _DEMOTED:
            await self._let_go()
        raise StoreUnavailable(f"Redis at {self.name} failed: {kind}")

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()

    async def _evaluate(self, keys: tuple[str, ...], arguments: tuple[bytes | str | int, ...]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except exceptions.NoScriptError:
            # After a restart, on another node, or the first time; EVAL loads it for the next call.
            return await self._client.execute_command("EVAL", self._script, len(keys), *keys, *arguments)

    async def _let_go(self) -> None:
        """Leave a server that only copies another one now: where its name leads, new connections find out."""
        pool = getattr(self._client, "connection_pool", None)  # a cluster's client asks the nodes itself
        if pool is not None:
            with contextlib.suppress(exceptions.RedisError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    await pool.disconnect(inuse_connections=False)

    def _answered(self) -> None:
        self.breaker.succeeded()
        if self._is_away:
            self._is_away = False
            log.warning("counter store answers again", extra={"store": self.name})

    def _failed(self, kind: str) -> None:
        self.last_error = kind
        self.breaker.failed()
        if not self._is_away:
            self._is_away = True
            log.error("counter store unavailable", extra={"store": self.name, "error_type": kind})


def _kind(error: BaseException) -> str:
    """A word for what went wrong: the server's error code, else our name for it."""
    code = getattr(error, "status_code", None)
    if isinstance(code, str) and code and code != _PLAIN_ERROR:
        return code
    if type(error) is not exceptions.ResponseError:
        return type(error).__name__
    text = str(error)
    if _UNAUTHENTICATED in text:
        return "NOAUTH"
    # Codes are capitals; whatever else comes first may be anybody's words.
    first = text.split(" ", 1)[0]
    if first.isascii() and first.isalpha() and first.isupper() and first != _PLAIN_ERROR:
        return first
    return text[:_LONGEST_KIND] if _OURS in text else _PLAIN_ERROR


def _name(url: str) -> str:
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def _client(url: str) -> Any:
    """A client that neither retries nor speaks more than it must; `Link` owns time and tries."""
    options: dict[str, Any] = {"protocol": 2, "driver_info": None, "retry": Retry(NoBackoff(), 0)}
    try:
        if _CLUSTER in url.partition("://")[0]:
            plain = url.replace(_CLUSTER, "", 1)
            return aioredis.RedisCluster.from_url(plain, max_connections=CONNECTIONS, **options)
        pool = aioredis.BlockingConnectionPool.from_url(
            url, max_connections=CONNECTIONS, timeout=None, **options
        )
        return aioredis.Redis.from_pool(pool)
    except (ValueError, TypeError) as error:
        # Its text may quote the URL, and with it the password.
        raise SettingsInvalid(
            f"--store (EXTPROC_STORE) is no URL that can be read ({type(error).__name__})"
        ) from None
