"""Bodies of Google's generative calls, read alike for the Gemini API and Vertex AI.

Floor 1, pure. Which call takes which body follows from its operation. Sources: google-genai
`models`, `batches` and `types`, recorded requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from extproc.formats import fields
from extproc.formats.base import CONTROL, JSON, Call, OutputCeiling, ParsedRequest
from extproc.formats.content import Content
from extproc.formats.fields import wrong
from extproc.formats.google.gemini_content import read_content, read_media
from extproc.formats.google.proto_json import camel, messages, names, repeated
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_REQUEST = names(
    *("model", "contents", "systemInstruction", "generationConfig", "tools", "cachedContent"),
    *("content", "title", "requests", "instances", "parameters", "batch", "inputConfig"),
    *("generateContentRequest",),
)
_CONFIG = names(
    *("maxOutputTokens", "candidateCount", "temperature", "responseSchema", "responseJsonSchema"),
    *("_responseJsonSchema", "responseFormat", "routingConfig", "modelConfig", "sampleCount"),
)
_SCHEMAS = ("responseSchema", "responseJsonSchema", "_responseJsonSchema", "responseFormat")
_ROUTING = names("manualMode", "autoMode")
_TOOL = names(
    *("functionDeclarations", "mcpServers", "retrieval", "googleSearch", "googleSearchRetrieval"),
    *("enterpriseWebSearch", "parallelAiSearch", "exaAiSearch", "codeExecution", "urlContext"),
    *("computerUse", "fileSearch", "googleMaps"),
)
_LISTS_OF_TOOLS = ("functionDeclarations", "mcpServers")
# A router takes another model than the path's, and which one no rule sees.
_ROUTES = "must not be given: it lets the provider choose another model than the rules were asked about"
_NAMED = names("name", "modelName")
_RANKING = names("vertexRagStore", "ragRetrievalConfig", "ranking", "llmRanker", "rankService", "modelName")
_BATCH = names("model", "inputConfig")
_INPUT = names("requests", "fileName")
_ITEM = names("request")

# No role of the API, so that no counter takes a schema for what somebody said.
_SCHEMA_ROLE = "response_schema"
# What an instance of a prediction says about itself.
_NO_INPUT = frozenset({"task_type", "taskType", "mimeType", "referenceType"})
_COLLECTIONS = ("tunedmodels", "endpoints")

# What a body must hold one of, by operation.
_SHAPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "generate_content": ("contents",),
        "embeddings": ("content", "requests", "instances"),
        "image_generation": ("instances",),
        "prediction": ("instances",),
        "batch": ("batch", "inputConfig"),
    }
)
_GENERATED = "generationConfig/maxOutputTokens"
_PREDICTED = "parameters/maxOutputTokens"
# By operation; what makes images, or vectors, has none.
CEILINGS: Mapping[str, OutputCeiling] = MappingProxyType(
    {
        "generate_content": OutputCeiling(read=(_GENERATED,), added=_GENERATED, has_two_spellings=True),
        "prediction": OutputCeiling(read=(_PREDICTED,), added=_PREDICTED, has_two_spellings=True),
        "batch": OutputCeiling(
            each="batch/inputConfig/requests/requests/*/request",
            read=(_GENERATED,),
            added=_GENERATED,
            has_two_spellings=True,
        ),
    }
)


def parse(body: JSON, call: Call) -> ParsedRequest:
    """Read the body of any of these calls. Raises `RequestRefused` (400) naming what is wrong."""
    found = _REQUEST.read(body, "")
    sums = _Sums(call)
    _read_shape(found, call, sums)
    models = fields.models(sums.models)
    if not models and call.operation != CONTROL:
        raise wrong("/model", "is required and must be a string that is not empty")
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=models[0] if models else "",
        models=models,
        stream=bool(call.stream),
        choices=max(1, sums.choices),
        message_count=sums.message_count,
        tools=fields.tools(sums.tools, "/tools"),
        modalities=tuple(sorted(sums.content.modalities)),
        temperature=sums.temperature,
        has_state=sums.has_state,
        max_output_tokens=0 if _is_to_be_cached(call) else sums.max_output_tokens,
    )
    return ParsedRequest(request=request, prompt=sums.content.prompt(tuple(sums.definitions)))


def model_name(resource: str) -> str:
    """The name that policies see of a resource: of `models/x` it is `x`; a tuned model keeps its kind."""
    rest, _, name = resource.lower().rpartition("/")
    kind = rest.rpartition("/")[2]
    return f"{kind}/{name}" if kind in _COLLECTIONS else name


def _is_to_be_cached(call: Call) -> bool:
    """Whether what is read is only kept: all that generates names its model in the path."""
    return call.operation == "generate_content" and not call.model


def _read_shape(found: JSON, call: Call, sums: _Sums) -> None:
    if _is_to_be_cached(call):
        sums.context(found, "")
        return
    if call.operation == CONTROL:
        # Whatever it holds; a call that spends nothing has many shapes.
        sums.context(found, "")
        inner = fields.mapping(found, "generateContentRequest")
        sums.context(_REQUEST.read(inner, "/generateContentRequest"), "/generateContentRequest")
        return
    wanted = _SHAPES[call.operation]
    shapes = [key for key in wanted if key in found]
    if len(shapes) != 1:
        taken = " or ".join(f"/{key}" for key in wanted)
        raise fields.not_this_call(f"{taken} is required, and one alone: this path takes nothing else")
    _READERS[shapes[0]](sums, found, "")


class _Sums:
    """What one body adds up to; several requests in one body are read into the same."""

    def __init__(self, call: Call) -> None:
        self.content = Content()
        self.models = [call.model]
        self.tools: list[str] = []
        self.definitions: list[str] = []
        self.message_count = 0
        self.choices = 0
        self.temperature: float | None = None
        self.has_state = False
        self._ceilings: list[int | None] = []

    @property
    def max_output_tokens(self) -> int | None:
        """The largest ceiling of one choice; None where any request declares none."""
        known = [ceiling for ceiling in self._ceilings if ceiling is not None]
        return max(known) if known and len(known) == len(self._ceilings) else None

    def add_model(self, message: JSON, at: str, key: str = "model") -> None:
        """Note the model that a message names, if it does."""
        self.models.append(model_name(fields.name(message, key, at)))

    def generate(self, message: JSON, at: str) -> None:
        """Read a GenerateContentRequest."""
        found = _REQUEST.read(message, at)
        if "contents" not in found:
            raise fields.not_this_call(f"{at}/contents is required: this is to generate content")
        self.context(found, at)

    def context(self, found: JSON, at: str) -> None:
        """Read what a request to generate has in common with one to count, or to cache, its context."""
        self.add_model(found, at)
        self.has_state = self.has_state or "cachedContent" in found
        if "systemInstruction" in found:
            read_content(found["systemInstruction"], f"{at}/systemInstruction", self.content, "system")
        for here, item in repeated(found, "contents", at):
            read_content(item, here, self.content, "user")
            self.message_count += 1
        self._config(fields.mapping(found, "generationConfig", at), f"{at}/generationConfig")
        self._tools(found, at)

    def embed(self, message: JSON, at: str) -> None:
        """Read an EmbedContentRequest."""
        found = _REQUEST.read(message, at)
        if "content" not in found:
            raise fields.not_this_call(f"{at}/content is required: this is to embed content")
        self.add_model(found, at)
        self.content.text(fields.string(found, "title", at))
        read_content(found["content"], f"{at}/content", self.content, "")
        self.message_count += 1

    def embed_each(self, found: JSON, at: str) -> None:
        """Read a BatchEmbedContentsRequest."""
        self.add_model(found, at)
        for here, each in messages(found, "requests", at):
            self.embed(each, here)

    def predict(self, found: JSON, at: str) -> None:
        """Read a PredictRequest, whose instances are whatever the model takes."""
        for _, instance in messages(found, "instances", at):
            self._instance(instance)
            self.content.end_message("")
            self.message_count += 1
        self._config(fields.mapping(found, "parameters", at), f"{at}/parameters")
        self.add_model(found, at)

    def batch(self, found: JSON, at: str) -> None:
        """Read a batch of requests, in the body or in a file of which nothing is known."""
        self.add_model(found, at)
        at = f"{at}/batch"
        batch = _BATCH.read(fields.mapping(found, "batch"), at)
        self.add_model(batch, at)
        at = f"{at}/inputConfig"
        source = _INPUT.read(fields.mapping(batch, "inputConfig", at), at)
        inlined = _INPUT.read(fields.mapping(source, "requests", at), f"{at}/requests")
        self.has_state = not inlined or "fileName" in source
        for here, item in messages(inlined, "requests", f"{at}/requests"):
            each = fields.mapping(_ITEM.read(item, here), "request", here)
            (self.embed if "content" in each else self.generate)(each, f"{here}/request")

    def job(self, found: JSON, at: str) -> None:
        """Read a batch job, whose requests are in files."""
        self.add_model(found, at)
        self.has_state = True

    def _config(self, config: JSON, at: str) -> None:
        found = _CONFIG.read(config, at)
        self._ceilings.append(fields.count(found, "maxOutputTokens", at))
        counts = (fields.count(found, key, at) for key in ("candidateCount", "sampleCount"))
        self.choices += max((count for count in counts if count), default=1)
        self.temperature = fields.number(found, "temperature", at)
        # A schema is part of the prompt that is billed.
        for key in _SCHEMAS:
            if key in found:
                self.content.text(compact_json(found[key]))
                self.content.end_message(_SCHEMA_ROLE)
        if "modelConfig" in found:
            raise wrong(f"{at}/modelConfig", _ROUTES)
        at = f"{at}/routingConfig"
        routing = _ROUTING.read(fields.mapping(found, "routingConfig", at), at)
        if "autoMode" in routing:
            raise wrong(f"{at}/autoMode", _ROUTES)
        manual = _NAMED.read(fields.mapping(routing, "manualMode", at), f"{at}/manualMode")
        self.add_model(manual, f"{at}/manualMode", "modelName")

    def _tools(self, found: JSON, at: str) -> None:
        for here, tool in messages(found, "tools", at):
            known = _TOOL.read(tool, here)
            for key in _LISTS_OF_TOOLS:
                for place, function in messages(known, key, here):
                    self.tools.append(fields.string(_NAMED.read(function, place), "name", place))
                    self.definitions.append(compact_json(function))
            if "retrieval" in known:
                self._ranking(known["retrieval"], f"{here}/retrieval")
            # The provider's own tools: the field is the name.
            built_in = (camel(key) for key, value in tool.items() if value is not None)
            self.tools += [name for name in built_in if name not in _LISTS_OF_TOOLS]

    def _ranking(self, message: Any, at: str) -> None:
        """A retrieval may let a model of its own rank what it found."""
        if not isinstance(message, dict):
            raise wrong(at, "must be an object")
        found = _RANKING.read(message, at)
        self.add_model(found, at, "modelName")
        for key, value in found.items():
            if key != "modelName":
                self._ranking(value, f"{at}/{key}")

    def _instance(self, value: Any) -> None:
        if isinstance(value, str):
            self.content.text(value)
        elif isinstance(value, list):
            for item in value:
                self._instance(item)
        elif isinstance(value, dict) and not self._is_media(value):
            for key, item in value.items():
                if key not in _NO_INPUT:
                    self._instance(item)

    def _is_media(self, value: JSON) -> bool:
        data, uri = value.get("bytesBase64Encoded"), value.get("gcsUri")
        if not isinstance(data, str) and not isinstance(uri, str):
            return False
        mime_type = value.get("mimeType")
        named = mime_type if isinstance(mime_type, str) else "image/"
        read_media(named, data if isinstance(data, str) else "", self.content)
        return True


_READERS = MappingProxyType(
    {
        "contents": _Sums.generate,
        "content": _Sums.embed,
        "requests": _Sums.embed_each,
        "instances": _Sums.predict,
        "batch": _Sums.batch,
        "inputConfig": _Sums.job,
    }
)
