"""Usage and endings of OpenAI's generated images.

Floor 1, pure. The images themselves are never kept. Sources: openai-python `types/images_response`,
`types/image_gen_stream_event`, `types/image_edit_stream_event`; recorded answers.
"""

from __future__ import annotations

from extproc.formats.answers import JSON, Tally, as_object, as_objects, event_object, tokens
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_PARTIAL = (".partial_image", ".in_progress", ".generating")


class OpenAIImagesAnswers:
    """Reads `images` objects, `image_generation.*` and `image_edit.*` events."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"))
        for position, image in enumerate(as_objects(body.get("data"))):
            tally.say((position, "prompt"), image.get("revised_prompt"))
        tally.usage = _read_usage(body)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take the end of one image with its usage, or an error; sketches are of no interest."""
        if event.event.endswith(_PARTIAL):
            return
        body = event_object(event.data)
        if body.get("error"):
            tally.fail(body["error"])
        kind = body.get("type")
        if isinstance(kind, str) and kind.endswith(".completed"):
            tally.usage = _read_usage(body) or tally.usage
            tally.finished = tally.usage is not None


def _read_usage(body: JSON) -> Usage | None:
    """The usage of the images, and of the second model that draws vectors, which bills beside it."""
    usage, svg = as_object(body.get("usage")), as_object(body.get("svg_usage"))
    read, written = tokens(usage.get("input_tokens")), tokens(usage.get("output_tokens"))
    if read is None and written is None:
        return None
    read_details = as_object(usage.get("input_tokens_details"))
    written_details = as_object(usage.get("output_tokens_details"))
    svg_read, svg_written = tokens(svg.get("input_tokens")), tokens(svg.get("output_tokens"))
    return Usage(
        input_tokens=_sum(read, svg_read),
        output_tokens=_sum(written, svg_written),
        image_input_tokens=tokens(read_details.get("image_tokens")),
        image_output_tokens=tokens(written_details.get("image_tokens")),
        reasoning_output_tokens=tokens(svg.get("reasoning_tokens")),
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first + (second or 0)
