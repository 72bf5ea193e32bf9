import pytest

from extproc.formats import FORMATS
from extproc.policy import literals
from extproc.policy.cel import ExpressionInvalid, Result, compile_expression


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('request.api == "openai"', "one of anthropic_batches, anthropic_complete"),
        ('"openai" != request.api', "one of anthropic_batches, anthropic_complete"),
        ('request.operation in ["chat", "chatt"]', "one of batch, chat, control"),
        ('"picture" in request.modalities', "one of audio, file, image"),
        ('request.method == "post"', "POST"),
        ('request.model == "GPT-4o"', "lower case: 'gpt-4o'"),
        ('"GPT-4o" in request.models', "lower case: 'gpt-4o'"),
        ('request.model.startsWith("GPT")', "lower case: 'gpt'"),
        ('request.headers["X-Team"] == "a"', "lower case: 'x-team'"),
        ('request.headers[?"X-Team"].orValue("") == "a"', "lower case: 'x-team'"),
        ('"X-Team" in request.headers', "lower case: 'x-team'"),
        ('request.headers["authorization"] == "a"', "use identity"),
        ('request.headers.cookie == "a"', "use identity"),
    ],
)
def test_a_comparison_that_can_never_hold_is_refused(text: str, words: str) -> None:
    with pytest.raises(ExpressionInvalid, match=words):
        compile_expression(text, Result.BOOL)


@pytest.mark.parametrize(
    "text",
    [
        'request.api == ""',  # an unclassified request
        'request.api == request.model || "x" == "y"',
        'request.headers["x-team"] == "Team A"',
        'identity.team == "Team A"',
        'request.model.contains("mini")',
        'request.tools.exists(t, t == "Search")',
    ],
)
def test_what_can_hold_is_accepted(text: str) -> None:
    compile_expression(text, Result.BOOL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", set()),
        (
            'identity.labels.tier == "a" && now > timestamp("2024-01-01T00:00:00Z")',
            {"identity.labels", "now"},
        ),
        ("has(request.temperature)", {"request.temperature"}),
        ('request.?model.orValue("") == "a"', {"request"}),
        ("dyn(request) == 1", {"request"}),
        ('request.tools.exists(request, request == "a")', {"request.tools", "request"}),
        ('[request].exists(r, r.model == "a")', {"request"}),
        ('{"a": tokens.input}["a"] == 1', {"tokens.input"}),
    ],
)
def test_every_fact_an_expression_reads_is_known(text: str, expected: set[str]) -> None:
    assert compile_expression(text, Result.BOOL).reads == expected


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('request.headers["x"] == "a"', ['"x"']),
        ('request.headers.x == "a"', [".x"]),
        ('request.headers[request.model] == "a"', [".model]"]),
        ('request.headers["x"] == request.headers["y"]', ['"x"', '"y"']),
        ('request.headers["x"] == "a" && "y" in request.headers', ['"x"']),
        ('request.headers["x"] == "a" && "x" in request.models', ['"x"']),
        ('request.headers[?"x"].value() == "a"', ['"x"']),
        ('request.headers.?x.value() == "a"', [".?x"]),
        ('request.models.exists(m, request.headers[m] == "a")', ["m]"]),
        ('request.headers.exists(h, request.headers["x"] == h)', ['"x"']),
    ],
)
def test_a_header_that_nothing_asked_for_is_found_where_it_is_read(text: str, places: list[str]) -> None:
    found = compile_expression(text, Result.BOOL).unguarded

    assert found
    assert all(text[fault.offset :].startswith(tuple(places)) for fault in found)


@pytest.mark.parametrize(
    "text",
    [
        "true",
        '"x" in request.headers && request.headers["x"] == "a"',
        '"x" in request.headers && request.headers.x == "a"',
        '!("x" in request.headers) || request.headers["x"] == "a"',
        'has(request.headers.x) && request.headers["x"] == "a"',
        'has(request.headers.x) && request.headers.x == "a"',
        'request.headers[?"x"].orValue("") == "a"',
        'request.headers.?x.orValue("") == "a"',
        'request.headers[?"x"].hasValue() && request.headers[?"x"].value() == "a"',
        'request.headers[?"x"].optMap(v, v + "!").orValue("") == "a!"',
        'request.headers[?"x"].or(request.headers[?"y"]).orValue("") == "a"',
        'request.model in request.headers && request.headers[request.model] == "a"',
        'request.headers.exists(h, h.startsWith("x-") && request.headers[h] == "a")',
        'identity.labels["x"] == "a" && identity.claims.sub == "b"',
    ],
)
def test_a_header_that_is_asked_for_or_read_optionally_fails_nothing(text: str) -> None:
    assert compile_expression(text, Result.BOOL).unguarded == ()


def test_every_registered_format_can_be_compared_with() -> None:
    assert set(FORMATS) == set(literals.APIS)
