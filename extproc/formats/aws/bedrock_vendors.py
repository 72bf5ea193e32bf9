"""Which body a model of Bedrock's InvokeModel takes: its id names the vendor, and the body must agree.

Floor 1, pure. Where only AWS knows the model behind an id, the body tells, if it can be one vendor's
alone. Source: Bedrock user guide, "Inference request parameters and response fields for foundation
models", read 2026-09.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from extproc.errors import RequestRefused
from extproc.formats import fields
from extproc.formats.anthropic import messages as anthropic_messages
from extproc.formats.anthropic.messages import AnthropicMessages
from extproc.formats.aws import bedrock_bodies as bodies
from extproc.formats.aws import bedrock_converse
from extproc.formats.aws.bedrock_bodies import BodyReader
from extproc.formats.aws.bedrock_converse import read_converse
from extproc.formats.aws.bedrock_models import vendor_names
from extproc.formats.base import JSON, OutputCeiling
from extproc.formats.openai.chat import OpenAIChat

_CEILINGS = ("max_tokens", "max_completion_tokens", "max_gen_len", "max_tokens_to_sample", "maxTokens")
# Fields of which a shape has some and no others: who reads one for the other misses prompt or ceiling.
_MARKS = frozenset(
    {
        *_CEILINGS,
        *("messages", "prompt", "inputText", "inputImage", "message", "query", "text_prompts", "input_type"),
        *("anthropic_version", "inferenceConfig", "schemaVersion", "toolConfig", "textGenerationConfig"),
        *("taskType", "imageGenerationConfig", "singleEmbeddingParams", "num_generations", "numResults"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One body: the fields it must have, those it may have of `_MARKS`, and who reads it."""

    operation: str
    requires: tuple[str, ...]
    read: BodyReader
    takes: tuple[str, ...] = ()
    ceiling: OutputCeiling | None = None
    tells: tuple[str, ...] = ()  # one of these must be there where the id names no vendor

    def fits(self, present: frozenset[str]) -> bool:
        """Whether a body with these fields has what this shape must have, and nothing that it cannot."""
        is_whole = present.issuperset(self.requires)
        return is_whole and (present & _MARKS).issubset((*self.requires, *self.takes, *self.tells))

    def tells_itself(self, present: frozenset[str]) -> bool:
        """Whether a body with these fields says by itself that it is of this shape."""
        return not self.tells or not present.isdisjoint(self.tells)


def _named(name: str) -> OutputCeiling:
    return OutputCeiling(read=(name,), added=name)


CLAUDE = Shape(
    operation="chat",
    requires=("anthropic_version", "messages"),
    takes=("max_tokens",),
    read=AnthropicMessages().parse_request,
    ceiling=anthropic_messages.CEILING,
)
CLAUDE_PROMPT = Shape(
    operation="text_completion",
    requires=("prompt", "max_tokens_to_sample"),
    takes=("anthropic_version",),
    read=bodies.prompt("max_tokens_to_sample"),
    ceiling=_named("max_tokens_to_sample"),
)
NOVA = Shape(
    operation="chat",
    requires=("messages",),
    tells=("inferenceConfig", "schemaVersion", "toolConfig"),
    read=read_converse,
    ceiling=bedrock_converse.CEILING,
)
_CHAT_CEILING = OutputCeiling(read=("max_tokens", "max_completion_tokens"), added="max_tokens")
OPENAI = Shape(
    operation="chat",
    requires=("messages",),
    tells=("max_tokens", "max_completion_tokens"),
    read=OpenAIChat().parse_request,
    ceiling=_CHAT_CEILING,
)
# OpenAI's own models take the newer name.
GPT = replace(OPENAI, ceiling=replace(_CHAT_CEILING, added="max_completion_tokens"))
OPENAI_PROMPT = Shape(
    operation="text_completion",
    requires=("prompt",),
    tells=("max_tokens",),
    read=bodies.prompt("max_tokens", "n", "best_of"),
    ceiling=_named("max_tokens"),
)
COMMAND_PROMPT = Shape(
    operation="text_completion",
    requires=("prompt",),
    tells=("num_generations",),
    takes=("max_tokens",),
    read=bodies.prompt("max_tokens", "num_generations"),
    ceiling=_named("max_tokens"),
)
LLAMA = Shape(
    operation="text_completion",
    requires=("prompt",),
    tells=("max_gen_len",),
    read=bodies.prompt("max_gen_len"),
    ceiling=_named("max_gen_len"),
)
JURASSIC = Shape(
    operation="text_completion",
    requires=("prompt",),
    tells=("maxTokens", "numResults"),
    read=bodies.prompt("maxTokens", "numResults"),
    ceiling=_named("maxTokens"),
)
TITAN_TEXT = Shape(
    operation="text_completion",
    requires=("inputText",),
    tells=("textGenerationConfig",),
    read=bodies.titan_text,
    ceiling=_named("textGenerationConfig/maxTokenCount"),
)
_TITAN_EMBEDDING = ("dimensions", "normalize", "embeddingTypes", "embeddingConfig", "inputImage")
TITAN_EMBEDDING = Shape(
    operation="embeddings",
    requires=("inputText",),
    tells=_TITAN_EMBEDDING,
    read=bodies.titan_embedding,
)
TITAN_IMAGE_EMBEDDING = Shape(
    operation="embeddings",
    requires=("inputImage",),
    read=bodies.titan_embedding,
)
NOVA_EMBEDDING = Shape(
    operation="embeddings",
    requires=("singleEmbeddingParams",),
    takes=("schemaVersion", "taskType"),
    read=bodies.nova_embedding,
)
COHERE_CHAT = Shape(
    operation="chat",
    requires=("message",),
    takes=("max_tokens",),
    read=bodies.cohere_chat,
    ceiling=_named("max_tokens"),
)
COHERE_EMBEDDING = Shape(
    operation="embeddings", requires=("input_type",), takes=("max_tokens",), read=bodies.cohere_embedding
)
RERANK = Shape(operation="rerank", requires=("query", "documents"), read=bodies.rerank)
AMAZON_IMAGES = Shape(
    operation="image_generation",
    requires=("taskType",),
    takes=("imageGenerationConfig",),
    read=bodies.amazon_images,
)
STABILITY = Shape(
    operation="image_generation",
    requires=("prompt",),
    tells=("aspect_ratio", "mode", "output_format", "negative_prompt", "image"),
    read=bodies.stability,
)
STABILITY_EDIT = Shape(
    operation="image_generation", requires=("image",), tells=("output_format",), read=bodies.stability
)
STABILITY_WEIGHTED = Shape(operation="image_generation", requires=("text_prompts",), read=bodies.stability)

# The first prefix that a model's id has decides.
_VENDORS: tuple[tuple[str, tuple[Shape, ...]], ...] = (
    ("anthropic.", (CLAUDE, CLAUDE_PROMPT)),
    ("amazon.titan-embed", (TITAN_EMBEDDING, TITAN_IMAGE_EMBEDDING)),
    ("amazon.titan-image", (AMAZON_IMAGES,)),
    ("amazon.titan", (TITAN_TEXT,)),
    ("amazon.nova-canvas", (AMAZON_IMAGES,)),
    ("amazon.nova-2-multimodal-embeddings", (NOVA_EMBEDDING,)),
    ("amazon.nova", (NOVA,)),
    ("amazon.rerank", (RERANK,)),
    ("meta.llama", (LLAMA,)),
    ("mistral.", (OPENAI, OPENAI_PROMPT)),
    ("cohere.command-r", (COHERE_CHAT,)),
    ("cohere.command", (COMMAND_PROMPT,)),
    ("cohere.embed", (COHERE_EMBEDDING,)),
    ("cohere.rerank", (RERANK,)),
    ("ai21.j2", (JURASSIC,)),
    ("ai21.jamba", (OPENAI,)),
    ("deepseek.", (OPENAI, OPENAI_PROMPT)),
    ("qwen.", (OPENAI,)),
    ("openai.", (GPT,)),
    ("google.", (OPENAI,)),
    ("minimax.", (OPENAI,)),
    ("moonshot", (OPENAI,)),
    ("nvidia.", (OPENAI,)),
    ("writer.", (OPENAI,)),
    ("zai.", (OPENAI,)),
    ("stability.", (STABILITY, STABILITY_EDIT, STABILITY_WEIGHTED)),
)
_ALL: tuple[Shape, ...] = (
    *(CLAUDE, CLAUDE_PROMPT, NOVA, OPENAI, OPENAI_PROMPT, COMMAND_PROMPT, LLAMA, JURASSIC, TITAN_TEXT),
    *(TITAN_EMBEDDING, TITAN_IMAGE_EMBEDDING, NOVA_EMBEDDING, COHERE_CHAT, COHERE_EMBEDDING, RERANK),
    *(AMAZON_IMAGES, STABILITY, STABILITY_EDIT, STABILITY_WEIGHTED),
)


def shapes_of(model: str) -> tuple[Shape, ...]:
    """The bodies that a model takes, by its id; none where the id does not say."""
    for name in vendor_names(model):
        for prefix, shapes in _VENDORS:
            if name.startswith(prefix):
                return shapes
    return ()


def shape_of(model: str, body: JSON) -> Shape:
    """The one shape that model and body agree on. Raises `RequestRefused` (400) where there is none."""
    named = shapes_of(model)
    present = frozenset(key for key, value in body.items() if value is not None)
    fitting = [shape for shape in named or _ALL if shape.fits(present)]
    if not named:
        fitting = [shape for shape in fitting if shape.tells_itself(present)]
    if len(fitting) != 1:
        raise _no_shape(named)
    return fitting[0]


def _no_shape(named: tuple[Shape, ...]) -> RequestRefused:
    if not named:
        return fields.not_this_call("The model's id names no vendor, and the body is not one vendor's alone")
    wanted = "; or ".join(" and ".join(f"/{key}" for key in shape.requires) for shape in named)
    return fields.not_this_call(f"This model takes {wanted}, and no fields of other vendors")
