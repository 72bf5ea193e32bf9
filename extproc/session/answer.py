"""One answer as it passes: which bytes we read, which we take out, and what it came to.

Floor 2, pure. The session says when; nothing here knows a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from extproc.decision import Decision, Settlement
from extproc.formats.base import CONTROL, NO_OUTPUT, AnswerReader, WireFormat
from extproc.formats.body import AnswerDecoder, answer_decoder, media_type
from extproc.formats.plain_answers import UnreadAnswer
from extproc.formats.sse import EventFilter
from extproc.measure.bytes_per_token import AnswerForm
from extproc.measure.overrides import PriceBook
from extproc.model import AIRequest, Observation
from extproc.policy import accounting
from extproc.session.events import ResponseHeaders, ResponseTrailers

# What Envoy 1.40's ai_protocol_manager reads by itself. It knows no answer of Google's but what was
# generated: an embedding or a prediction would be charged as reserved.
NATIVE: Mapping[str, str] = MappingProxyType(
    {
        "openai_chat": "chat",
        "openai_responses": "chat",
        "anthropic_messages": "chat",
        "gemini": "generate_content",
        "vertex": "generate_content",
    }
)

# Their streams begin with usage whose output is that of the first word; the whole follows at the end.
_BEGIN_WITH_USAGE = frozenset({"anthropic_messages"})

_NONE_SEEN = ResponseHeaders(at_ns=0, status=0)
_FIRST_ERROR_STATUS = 400
# JSON compresses to a tenth, and to less where it repeats itself.
_INFLATION = 20


class Answer:
    """An answer from its headers on; without any it is the one that nobody saw."""

    def __init__(self, headers: ResponseHeaders = _NONE_SEEN) -> None:
        self._headers = headers
        self._reader: AnswerReader | None = None
        self._decoder: AnswerDecoder | None = None
        self._filter: EventFilter | None = None
        self._native: ResponseTrailers | None = None
        self._is_envoys = False  # to read
        self._begins_with_usage = False
        self._body_bytes = 0
        # Made once: an observation joins all the text that was generated.
        self._final: Observation | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it comes as server-sent events, whatever was asked for."""
        return media_type(self._headers.headers) == "text/event-stream"

    @property
    def reads_body(self) -> bool:
        """Whether its bytes travel through us."""
        return self._reader is not None

    @property
    def changes_body(self) -> bool:
        """Whether the client may get fewer bytes than the provider sent."""
        return self._filter is not None

    def read_through(
        self, request: AIRequest | None, wire_format: WireFormat, *, native: bool, strips: bool
    ) -> None:
        """Decide whether the body must be read; `strips` takes the usage chunk out that we asked for."""
        headers = self._headers
        is_success = 200 <= headers.status < 300  # noqa: PLR2004  success
        if request is None or request.operation == CONTROL:
            return
        if headers.is_local_reply or headers.end_of_stream or not is_success:
            return
        encoding = headers.headers.get("content-encoding", "identity")
        takes_chunk_out = strips and self.is_stream and not request.wants_usage_chunk
        envoy_reads = native and request.operation == NATIVE.get(request.api) and encoding == "identity"
        if envoy_reads and not takes_chunk_out:
            self._is_envoys = True
            self._begins_with_usage = self.is_stream and request.api in _BEGIN_WITH_USAGE
            return
        self._reader = wire_format.answer_reader(request, headers.headers)
        self._decoder = answer_decoder(encoding)
        if takes_chunk_out and encoding == "identity":
            self._filter = EventFilter(wire_format.is_usage_chunk, objects_only=True)

    def passed_on(self, chunk: bytes, *, is_last: bool) -> bytes | None:
        """What the client gets in place of this chunk; None: the chunk itself."""
        if self._filter is None:
            return None
        return self._filter.feed(chunk) + (self._filter.flush() if is_last else b"")

    def read(self, chunk: bytes) -> None:
        """Take in a chunk that was passed on."""
        if self._reader is not None and self._decoder is not None:
            decoded = self._decoder.feed(chunk)
            self._body_bytes += len(decoded)
            self._reader.feed(decoded)

    def work_bytes(self, size: int, *, is_last: bool) -> int:
        """How much reading the next `size` bytes, or the end, may mean at once."""
        if self._reader is None or self._decoder is None:
            return 0
        decoded = size * (_INFLATION if "content-encoding" in self._headers.headers else 1)
        return decoded + self._reader.pending_bytes(is_last=is_last)

    @property
    def held_bytes(self) -> int:
        """What was taken in and waits to be read."""
        return 0 if self._reader is None else self._reader.pending_bytes(is_last=True)

    def let_go(self) -> None:
        """Read no more of it, and forget what waits: it is charged as reserved."""
        self._reader = UnreadAnswer()

    def finish(self, native: ResponseTrailers | None = None) -> None:
        """The body ended; `native` is what Envoy read of it."""
        self._native = native
        if self._reader is not None:
            self._reader.finish()
        self._final = self._observe()

    def seen(self) -> Observation:
        """What we read, completed by what Envoy read: a whole figure beats a part of one."""
        return self._final or self._observe()

    def _observe(self) -> Observation:
        seen = Observation() if self._reader is None else self._reader.observation()
        if self._decoder is not None and self._decoder.is_broken:
            seen = replace(seen, is_incomplete=True)
        native = self._native
        if native is None or native.usage is None or _is_whole(seen):
            return seen
        return replace(
            seen,
            usage=native.usage,
            finished=not native.usage_is_partial,
            is_incomplete=seen.is_incomplete or not self._told_by_envoy,
            model=seen.model or native.model,
        )

    def form_unread(self, request: AIRequest | None, model: str) -> AnswerForm | None:
        """What to estimate it by, where Envoy alone could have read its usage and found none."""
        if request is None or not self._is_envoys or self._told_by_envoy:
            return None
        return AnswerForm(api=request.api, provider=request.provider, model=model, is_stream=request.stream)

    def text_to_count(self) -> str:
        """What must be counted because nobody said what it cost; empty if nothing must."""
        seen = self.seen()
        return "" if self._told_by_envoy or _is_whole(seen) else seen.output_text

    @property
    def _told_by_envoy(self) -> bool:
        """Whether Envoy read what the answer came to, not only what it began with."""
        native = self._native
        if native is None or native.usage is None:
            return False
        return not (native.usage_is_partial and self._begins_with_usage)

    def settlement(
        self,
        decision: Decision,
        at_ns: int,
        *,
        observed_output_tokens: int | None,
        output_tokens_by_size: int | None,
        usual_reasoning_tokens: int,
        prices: PriceBook,
    ) -> Settlement:
        """What the decision comes to; `observed_output_tokens` is the count of `text_to_count`.

        `output_tokens_by_size` is what as many bytes hold as were sent, of an answer that nobody read.
        """
        headers, seen = self._headers, self.seen()
        ending = accounting.Ending(
            status=headers.status,
            is_local_reply=headers.is_local_reply,
            reached_upstream=headers.reached_upstream,
            timed_out=headers.timed_out,
            usage=seen.usage,
            finished=seen.finished,
            # A body that could not be read, or was cut before it could, says nothing of its cost.
            body_observed=seen.is_legible and (_says_anything(seen) or not _may_generate(decision.request)),
            is_incomplete=seen.is_incomplete,
            observed_output_tokens=observed_output_tokens,
            output_tokens_by_size=output_tokens_by_size,
            usual_reasoning_tokens=usual_reasoning_tokens,
            model=seen.model,
        )
        account = accounting.settle(decision, ending, prices)
        status_error = str(headers.status) if headers.status >= _FIRST_ERROR_STATUS else ""
        return Settlement(
            decision_id=decision.id,
            basis=account.basis,
            usage=account.usage,
            amounts=account.amounts,
            cost=account.cost,
            status=headers.status,
            model=seen.model,
            response_id=seen.response_id,
            finish_reasons=seen.finish_reasons,
            error_type=seen.error or status_error,
            first_byte_at_ns=headers.at_ns,
            ended_at_ns=at_ns,
            body_bytes=self._body_bytes,
        )


def _says_anything(seen: Observation) -> bool:
    """Whether anything was understood: `null`, or somebody else's words, are no empty answer."""
    return any((seen.usage, seen.output_text, seen.error, seen.model, seen.response_id, seen.finish_reasons))


def _may_generate(request: AIRequest | None) -> bool:
    return request is None or request.operation not in NO_OUTPUT


def _is_whole(seen: Observation) -> bool:
    return seen.finished and seen.usage is not None and seen.usage.is_complete
