"""The bodies of vendors that only Bedrock's InvokeModel takes: plain prompts, Titan, Cohere, images.

Floor 1, pure. Which body belongs to which model is `bedrock_vendors`. Source: Bedrock user guide,
"Inference request parameters and response fields for foundation models", read 2026-09.
"""

from __future__ import annotations

from collections.abc import Callable

from extproc.formats import fields
from extproc.formats.aws.bedrock_models import names
from extproc.formats.base import JSON, Call, ParsedRequest
from extproc.formats.content import Content
from extproc.formats.images import size_of_base64, size_of_url
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

BodyReader = Callable[[JSON, Call], ParsedRequest]


def _parsed(
    call: Call,
    content: Content,
    *,
    message_count: int = 1,
    ceiling: int | None = None,
    choices: int = 1,
    temperature: float | None = None,
    tools: tuple[str, ...] = (),
    definitions: tuple[str, ...] = (),
) -> ParsedRequest:
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=call.model,
        models=fields.models(names(call.model)),
        stream=bool(call.stream),
        choices=choices,
        message_count=message_count,
        tools=tools,
        modalities=tuple(sorted(content.modalities)),
        temperature=temperature,
        max_output_tokens=ceiling,
    )
    return ParsedRequest(request=request, prompt=content.prompt(definitions))


def prompt(ceiling: str, *choices: str) -> BodyReader:
    """A reader of one plain prompt; `ceiling` and `choices` are what the vendor calls them."""

    def read(body: JSON, call: Call) -> ParsedRequest:
        content = Content()
        content.text(fields.string(body, "prompt"))
        for image in _strings(body, "images", ""):
            content.image(size_of_base64(image))
        content.end_message("user")
        return _parsed(
            call,
            content,
            ceiling=fields.count(body, ceiling),
            choices=max((fields.count(body, key) or 1 for key in choices), default=1),
            temperature=fields.number(body, "temperature"),
        )

    return read


_TITAN_KEYS = frozenset({"maxTokenCount", "temperature"})


def titan_text(body: JSON, call: Call) -> ParsedRequest:
    """Titan's text models."""
    at = "/textGenerationConfig"
    config = fields.mapping(body, "textGenerationConfig")
    fields.check_case(config, _TITAN_KEYS, at)
    content = Content()
    content.text(fields.string(body, "inputText"))
    content.end_message("user")
    return _parsed(
        call,
        content,
        ceiling=fields.count(config, "maxTokenCount", at),
        temperature=fields.number(config, "temperature", at),
    )


def titan_embedding(body: JSON, call: Call) -> ParsedRequest:
    """Titan's embedding models: a text, an image, or both in one vector."""
    content = Content()
    content.text(fields.string(body, "inputText"))
    if image := fields.string(body, "inputImage"):
        content.image(size_of_base64(image))
    content.end_message("user")
    return _parsed(call, content)


def cohere_chat(body: JSON, call: Call) -> ParsedRequest:
    """Command R: a message, the ones before it, documents and tools."""
    content = Content()
    if preamble := fields.string(body, "preamble"):
        content.text(preamble)
        content.end_message("system")
    earlier = list(fields.objects(body, "chat_history"))
    for at, message in earlier:
        content.text(fields.string(message, "message", at))
        content.end_message(fields.name(message, "role", at) or "user")
    content.text(fields.string(body, "message"))
    for key in ("documents", "tool_results"):
        for _, item in fields.objects(body, key):
            content.text(compact_json(item))
    content.end_message("user")
    tools = list(fields.objects(body, "tools"))
    return _parsed(
        call,
        content,
        message_count=len(earlier) + 1,
        ceiling=fields.count(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        tools=fields.tools([fields.string(tool, "name", at) for at, tool in tools], "/tools"),
        definitions=tuple(compact_json(tool) for _, tool in tools),
    )


def cohere_embedding(body: JSON, call: Call) -> ParsedRequest:
    """Cohere's embedding models: texts, images, or inputs that mix them."""
    content = Content()
    texts, images = _strings(body, "texts", ""), _strings(body, "images", "")
    for text in texts:
        content.text(text)
        content.end_message("user")
    for image in images:
        content.image(size_of_url(image))
    inputs = list(fields.objects(body, "inputs"))
    for at, mixed in inputs:
        for here, part in fields.objects(mixed, "content", at):
            content.text(fields.string(part, "text", here))
            if part.get("image_url") is not None:
                url = fields.string(fields.mapping(part, "image_url", here), "url", f"{here}/image_url")
                content.image(size_of_url(url))
        content.end_message("user")
    return _parsed(call, content, message_count=len(texts) + len(images) + len(inputs))


def rerank(body: JSON, call: Call) -> ParsedRequest:
    """A query and the documents to rank by it, as Cohere and Amazon take them."""
    documents = body.get("documents")
    if not isinstance(documents, list):
        raise fields.wrong("/documents", "must be a list")
    content = Content()
    content.text(fields.string(body, "query"))
    content.end_message("user")
    for document in documents:
        content.text(document if isinstance(document, str) else compact_json(document))
        content.end_message("user")
    return _parsed(call, content, message_count=len(documents))


def stability(body: JSON, call: Call) -> ParsedRequest:
    """Stability's image models: a prompt, an image to start from, or weighted prompts."""
    content = Content()
    for key in ("prompt", "negative_prompt"):
        content.text(fields.string(body, key))
    for at, weighted in fields.objects(body, "text_prompts"):
        content.text(fields.string(weighted, "text", at))
    for key in ("image", "init_image", "mask", "mask_image"):
        if image := fields.string(body, key):
            content.image(size_of_base64(image))
    content.end_message("user")
    return _parsed(call, content, choices=fields.count(body, "samples") or 1)


def amazon_images(body: JSON, call: Call) -> ParsedRequest:
    """Titan Image Generator and Nova Canvas: a task, its parameters, how many images to make."""
    content = Content()
    for key in body:
        if key.endswith("Params"):
            shown = fields.told(key)
            _read_task(fields.mapping({shown: body[key]}, shown), f"/{shown}", content)
    content.end_message("user")
    config = fields.mapping(body, "imageGenerationConfig")
    number = fields.count(config, "numberOfImages", "/imageGenerationConfig")
    return _parsed(call, content, choices=number or 1)


def _read_task(parameters: JSON, at: str, content: Content) -> None:
    for key, value in parameters.items():
        if "image" in key.lower():
            shown = fields.told(key)
            images = _strings({shown: value}, shown, at) if isinstance(value, list) else [value]
            for image in images:
                content.image(size_of_base64(image) if isinstance(image, str) else None)
        elif isinstance(value, str):
            content.text(value)


def nova_embedding(body: JSON, call: Call) -> ParsedRequest:
    """Nova Multimodal Embeddings: one text, image, audio or video, or a piece of each."""
    at = "/singleEmbeddingParams"
    parameters = fields.mapping(body, "singleEmbeddingParams")
    content = Content()
    content.text(fields.string(fields.mapping(parameters, "text", at), "value", f"{at}/text"))
    image = fields.mapping(parameters, "image", at)
    if image:
        source = fields.mapping(image, "source", f"{at}/image")
        content.image(size_of_base64(fields.string(source, "bytes", f"{at}/image/source")))
    for modality in ("audio", "video"):
        if fields.mapping(parameters, modality, at):
            content.other(modality)
    content.end_message("user")
    return _parsed(call, content)


def _strings(body: JSON, key: str, at: str) -> list[str]:
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise fields.wrong(f"{at}/{key}", "must be a list")
    for position, item in enumerate(value):
        if not isinstance(item, str):
            raise fields.wrong(f"{at}/{key}/{position}", "must be a string")
    return value
