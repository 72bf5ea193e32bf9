"""The cupboard of wire formats: one file and one line here each; large vendors have a folder.

Floor 1. `classify` finds the format of a call, by the hosts and base paths of `providers`; a format
reads the call's body and its answer and speaks its dialect. What formats share, from bytes to values:

- bytes: `body` and `inflate` (encodings), `strict_json`, `multipart` and `part_headers` (forms);
- requests: `base` (the contract), `fields` (typed access), `content`, `images`, `unasked`;
- answers: `answers` (readers), `sse`, `ndjson`, `aws.event_stream`, `google.json_array` (framings),
  `plain_answers`;
- denials and limits: `advice`, and each vendor's `dialect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.formats.anthropic.batches import AnthropicBatches
from extproc.formats.anthropic.complete import AnthropicComplete
from extproc.formats.anthropic.messages import AnthropicMessages
from extproc.formats.aws.bedrock_converse import BedrockConverse
from extproc.formats.aws.bedrock_invoke import BedrockInvoke
from extproc.formats.base import WireFormat
from extproc.formats.cohere.v1 import CohereV1
from extproc.formats.cohere.v2 import CohereV2
from extproc.formats.google.gemini import Gemini
from extproc.formats.google.interactions import GeminiInteractions
from extproc.formats.google.vertex import Vertex
from extproc.formats.google.vertex_anthropic import VertexAnthropic
from extproc.formats.google.vertex_openai import VertexOpenAI
from extproc.formats.mcp import MCP
from extproc.formats.mistral import Mistral
from extproc.formats.ollama import Ollama
from extproc.formats.openai.assistants import OpenAIAssistants
from extproc.formats.openai.audio import OpenAIAudio
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.openai.completions import OpenAICompletions
from extproc.formats.openai.embeddings import OpenAIEmbeddings
from extproc.formats.openai.files import OpenAIFiles
from extproc.formats.openai.images import OpenAIImages
from extproc.formats.openai.moderations import OpenAIModerations
from extproc.formats.openai.realtime import OpenAIRealtime
from extproc.formats.openai.responses import OpenAIResponses
from extproc.formats.replicate import Replicate
from extproc.formats.rerank import Rerank
from extproc.formats.tgi import TGI
from extproc.formats.vllm import VLLM
from extproc.formats.watsonx import Watsonx
from extproc.formats.writer import Writer

_ALL: tuple[WireFormat, ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIResponses(),
    OpenAIEmbeddings(),
    OpenAIModerations(),
    OpenAIImages(),
    OpenAIAudio(),
    OpenAIRealtime(),
    OpenAIFiles(),
    OpenAIAssistants(),
    Rerank(),
    AnthropicMessages(),
    Gemini(),
    GeminiInteractions(),
    Vertex(),
    VertexAnthropic(),
    VertexOpenAI(),
    CohereV1(),
    CohereV2(),
    BedrockConverse(),
    BedrockInvoke(),
    TGI(),
    Ollama(),
    MCP(),
    AnthropicBatches(),
    AnthropicComplete(),
    Writer(),
    Mistral(),
    VLLM(),
    Watsonx(),
    Replicate(),
)

FORMATS: Mapping[str, WireFormat] = MappingProxyType({each.name: each for each in _ALL})
