"""Forms as real clients write them, read as the product reads them."""

from typing import Any

import httpx2

from extproc.formats import FORMATS
from extproc.formats.base import ParsedRequest
from extproc.formats.multipart import parse_form
from tests.formats.calls import claimed


def sent(**parts: Any) -> tuple[bytes, str]:
    """The body and content type of a form; `data` and `files` as HTTP clients take them."""
    request = httpx2.Request("POST", "http://gateway.example/", **parts)
    return request.read(), request.headers["content-type"]


def parsed_form(path: str, *, host: str = "gateway.example:10000", **parts: Any) -> ParsedRequest:
    """The form as the format of its path reads it."""
    data, content_type = sent(**parts)
    call = claimed(path, host=host, headers={"content-type": content_type})
    assert call is not None, path
    return FORMATS[call.api].parse_request(parse_form(data, content_type), call)
