"""The cupboard of wire formats: one file and one line here each.

Floor 1. `classify` finds the format of a call; a format reads the call's body and its answer and
speaks its dialect. What several formats share: `body` and `strict_json` (bytes to JSON), `fields`,
`content` and `images` (JSON to values), `sse` and `answers` (answers), `advice` (denials, limits).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.formats.anthropic_batches import AnthropicBatches
from extproc.formats.anthropic_complete import AnthropicComplete
from extproc.formats.anthropic_messages import AnthropicMessages
from extproc.formats.base import WireFormat
from extproc.formats.bedrock_converse import BedrockConverse
from extproc.formats.bedrock_invoke import BedrockInvoke
from extproc.formats.cohere_v1 import CohereV1
from extproc.formats.cohere_v2 import CohereV2
from extproc.formats.gemini import Gemini
from extproc.formats.gemini_interactions import GeminiInteractions
from extproc.formats.mcp import MCP
from extproc.formats.mistral import Mistral
from extproc.formats.ollama import Ollama
from extproc.formats.openai_assistants import OpenAIAssistants
from extproc.formats.openai_audio import OpenAIAudio
from extproc.formats.openai_chat import OpenAIChat
from extproc.formats.openai_completions import OpenAICompletions
from extproc.formats.openai_embeddings import OpenAIEmbeddings
from extproc.formats.openai_files import OpenAIFiles
from extproc.formats.openai_images import OpenAIImages
from extproc.formats.openai_moderations import OpenAIModerations
from extproc.formats.openai_realtime import OpenAIRealtime
from extproc.formats.openai_responses import OpenAIResponses
from extproc.formats.replicate import Replicate
from extproc.formats.rerank import Rerank
from extproc.formats.tgi import TGI
from extproc.formats.vertex import Vertex
from extproc.formats.vertex_anthropic import VertexAnthropic
from extproc.formats.vertex_openai import VertexOpenAI
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
