"""HTTP/1.1 answers, read as they arrive: a status, a few headers, the end of the body. No I/O here.

Only what a benchmark needs: one answer at a time on a connection that stays open.
"""

from __future__ import annotations

import re

from bench.errors import BenchFailed

_END_OF_HEAD = b"\r\n\r\n"
_LINE = b"\r\n"
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})[ \r]")


class AnswerReader:
    """Reads one answer; make one a request.

    `feed` raises `BenchFailed` for what is no answer that can be followed by another.
    """

    __slots__ = ("_missing", "_rest", "_step", "head", "is_complete", "status", "tail")

    def __init__(self) -> None:
        self.status = 0
        self.head = b""  # lower case, from the status line to the empty line
        self.tail = b""  # the end of the body: its last chunk, or all of it where it is not chunked
        self.is_complete = False
        self._rest = b""
        self._missing = 0
        self._step = self._read_head

    @property
    def has_started(self) -> bool:
        """Whether the head has arrived."""
        return self.status != 0

    def feed(self, data: bytes) -> bool:
        """Take bytes; answers whether the answer is complete."""
        buffer = self._rest + data if self._rest else data
        position = 0
        while not self.is_complete:
            reached = self._step(buffer, position)
            if reached == position:
                break
            position = reached
        self._rest = buffer[position:]
        if self.is_complete and self._rest:
            raise BenchFailed("bytes came after the end of an answer")
        return self.is_complete

    # Each step reads one whole piece and says where it ends, or stays where it is until there is more.

    def _read_head(self, buffer: bytes, start: int) -> int:
        end = buffer.find(_END_OF_HEAD, start)
        if end < 0:
            return start
        end += len(_END_OF_HEAD)
        status = _STATUS.match(buffer, start)
        if status is None:
            raise BenchFailed("an answer that does not begin with an HTTP/1.1 status line")
        self.status = int(status[1])
        self.head = buffer[start:end].lower()
        length = _LENGTH.search(self.head)
        if _CHUNKED.search(self.head):
            self._step = self._read_chunk
        elif length is not None:
            self._missing = int(length[1])
            self._step = self._read_rest
            self.is_complete = self._missing == 0
        else:
            raise BenchFailed(f"an answer with status {self.status} whose end nothing announces")
        return end

    def _read_rest(self, buffer: bytes, start: int) -> int:
        part = buffer[start : start + self._missing]
        self.tail += part
        self._missing -= len(part)
        self.is_complete = self._missing == 0
        return start + len(part)

    def _read_chunk(self, buffer: bytes, start: int) -> int:
        line = buffer.find(_LINE, start)
        if line < 0:
            return start
        size = _chunk_size(buffer[start:line])
        begin = line + len(_LINE)
        if size == 0:
            self._step = self._read_trailer
            return begin
        end = begin + size + len(_LINE)
        if len(buffer) < end:
            return start
        self.tail = buffer[begin : begin + size]
        return end

    def _read_trailer(self, buffer: bytes, start: int) -> int:
        line = buffer.find(_LINE, start)
        if line < 0:
            return start
        self.is_complete = line == start
        return line + len(_LINE)


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise BenchFailed("a chunk without a size")
    return int(digits, 16)
