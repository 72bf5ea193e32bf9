"""The demo provider: `python -m demo.provider --port 10100`.

It speaks the dialects that `demo.endpoints` lists, needs its own key, invents deterministic answers,
fails on request (`demo.faults`) and keeps books (`GET /books`). It forwards nothing anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

from demo.endpoints import Provider
from extproc.errors import VocabularyMissing
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load

DEFAULT_PORT = 10_100
DEFAULT_KEY = "sk-provider-demo"


class _Server(uvicorn.Server):
    """Leaves signals to us, so that an asked-for end is no failure."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(provider: Provider, listener: socket.socket, *, report_ready: bool) -> None:
    """Answer until SIGTERM or SIGINT; answers under way get five seconds to end."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if report_ready:
            print("ready", listener.getsockname()[1], flush=True)  # noqa: T201 - what --print-ready is for
        yield

    config = uvicorn.Config(
        provider.app(lifespan),
        log_level="critical",  # cuts are errors to the server and asked for by us
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)  # noqa: FBT003 - an attribute's value
    await server.serve(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send small writes at once; port 0 takes a free one."""
    listener = socket.create_server((host, port), backlog=1024)
    # asyncio does this only for sockets that say they are TCP, which those of create_server do not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def load_tokenizer(environ: Mapping[str, str]) -> Tokenizer:
    """The tokenizer the sidecar has, so that both count alike; without vocabularies by bytes."""
    try:
        return Tokenizer(load(default_directory(environ)))
    except VocabularyMissing as missing:
        print(f"{missing} Tokens are estimated from bytes.", file=sys.stderr)  # noqa: T201 - a command's message
        return Tokenizer()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; 0 after an asked-for end, 2 where it cannot listen."""
    parser = argparse.ArgumentParser(prog="demo.provider", description="An AI provider that costs nothing.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--print-ready", action="store_true", help="print `ready PORT` once it listens")
    options = parser.parse_args(arguments)
    try:
        listener = listen(options.host, options.port)
    except OSError as failure:
        taken = failure.errno == errno.EADDRINUSE
        why = "another program listens there" if taken else failure.strerror
        print(f"Cannot listen on {options.host}:{options.port}: {why}.", file=sys.stderr)  # noqa: T201 - a command's message
        return 2
    provider = Provider(
        tokenizer=load_tokenizer(os.environ), key=os.environ.get("DEMO_PROVIDER_KEY") or DEFAULT_KEY
    )
    with listener:
        asyncio.run(serve(provider, listener, report_ready=options.print_ready))
    return 0


if __name__ == "__main__":
    sys.exit(main())
