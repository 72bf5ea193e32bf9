"""Every exception this package raises on purpose.

    AIPolicyError
    +- RequestRefused            the caller's bytes cannot be understood; becomes a 4xx in its dialect
    +- PolicyFolderInvalid       a policy folder does not load; carries every problem with its position
    +- ProtocolViolation         Envoy (or whoever speaks ext_proc) sent what the protocol does not allow
    +- StoreUnavailable          a counter store did not answer
    +- LedgerUnavailable         a record could not be put on disk
    +- VocabularyMissing         a tokenizer vocabulary is not on this machine
    +- SettingsInvalid           a flag or environment variable makes no sense

A denial by policy is a value (`decision.Finding`), never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass


class AIPolicyError(Exception):
    """The root of this tree; catch it only at a door."""


class RequestRefused(AIPolicyError):
    """The request cannot be understood; `status`, `code` and `message` are what its caller is told.

    `message` is client-safe: it names the problem and the place (a JSON pointer, a header), never
    the text found there. `code` is one of `decision.Reason`.
    """

    def __init__(self, *, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a policy folder; line and column count from 1, 0 means the whole file."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyFolderInvalid(AIPolicyError):
    """A folder that does not load as a whole; `problems` is all of them, in file order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ProtocolViolation(AIPolicyError):
    """A message that no order of `ext_proc` allows here; the stream must be aborted, never returned."""


class StoreUnavailable(AIPolicyError):
    """A counter store did not answer in time; the outcome of the call is unknown."""


class LedgerUnavailable(AIPolicyError):
    """A record could not be put on disk in time; whether it is there is unknown."""


class QuestionInvalid(AIPolicyError):
    """A question to the ledger that has no answer; the message says what can be asked."""


class VocabularyMissing(AIPolicyError):
    """A tokenizer vocabulary is not on this machine, or is not the file its checksum names."""


class SettingsInvalid(AIPolicyError):
    """A setting makes no sense; the message names the flag, the variable and what is accepted."""
