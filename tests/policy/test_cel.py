import pytest

from extproc.formats.fields import MAX_TOOLS
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts
from extproc.policy.cel import ExpressionInvalid, Failure, Fault, Result, compile_expression

HEAD = RequestHead(method="POST", host="h", path="/v1/chat/completions", headers={"x-tier": "gold"})
REQUEST = AIRequest(api="openai_chat", provider="openai", operation="chat", model="m", models=("m",))


def evaluate(text: str, result: Result = Result.BOOL, request: AIRequest = REQUEST) -> object:
    built = facts.build(HEAD, Identity(team="t"), request, TokenEstimate(input=7), 1_700_000_000 * 10**9)
    return compile_expression(text, result).evaluate(cel.activate(built))


def faults(text: str, result: Result = Result.BOOL) -> tuple[Fault, ...]:
    with pytest.raises(ExpressionInvalid) as caught:
        compile_expression(text, result)
    return caught.value.faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('request.model == "m" && identity.team == "t"', True),
        ("tokens.input > 7", False),
        ("has(request.temperature)", False),
        ('request.headers[?"x-none"].orValue("none") == "none"', True),
        ("now.getFullYear() == 2023", True),
        ("request.models.exists(m, m.startsWith('m'))", True),
    ],
)
def test_a_match_is_true_or_false(text: str, expected: bool) -> None:  # noqa: FBT001  parametrized
    assert evaluate(text) is expected


def test_a_key_part_is_a_string() -> None:
    assert evaluate("identity.team + '/' + target.model", Result.STRING) == "t/m"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('request.headers["x-none"] == "a"', "NOT_FOUND"),
        ("1 / (tokens.input - 7) == 1", "INVALID_ARGUMENT"),
        ('request.model.matches(request.model + "(")', "INVALID_ARGUMENT"),
        ("int(request.model) == 1", "INVALID_ARGUMENT"),
    ],
)
def test_a_run_time_error_is_a_failure_and_never_true(text: str, code: str) -> None:
    assert evaluate(text) == Failure(code)


def test_a_comprehension_over_a_huge_list_fails_instead_of_taking_long() -> None:
    request = AIRequest(api="openai_chat", provider="openai", operation="chat", tools=("t",) * 20_000)

    assert evaluate('request.tools.exists(a, a == "x")', request=request) == Failure("INTERNAL")


def test_no_body_holds_more_tools_than_a_rule_can_walk() -> None:
    tools = tuple(f"t{number}" for number in range(MAX_TOOLS))
    request = AIRequest(api="openai_chat", provider="openai", operation="chat", tools=tools)

    assert evaluate('request.tools.exists(t, t == "x" || t == "y")', request=request) is False
    assert evaluate('request.tools.exists(t, t in ["u", "v", "w", "x"])', request=request) is False
    assert evaluate('request.tools.filter(t, t == "x").all(t, t != "x")', request=request) is True


def test_a_failure_says_nothing_of_the_request() -> None:
    secret = AIRequest(api="openai_chat", provider="openai", operation="chat", end_user="sekret")

    assert "sekret" not in str(evaluate('request.headers[request.end_user] == "a"', request=secret))


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    (fault,) = faults('identity.team == "a" && identity.taem == "b"')

    assert fault.offset == len('identity.team == "a" && identity')
    assert "id, user, team, org" in fault.message


def test_every_fault_of_an_expression_is_found() -> None:
    text = 'request.model == "é😀" &&\n  request.foo == 1 && tokens.bar == 2'

    assert [text[fault.offset :][:4] for fault in faults(text)] == [".foo", ".bar"]


def test_an_unknown_variable_is_named_with_those_there_are() -> None:
    (fault,) = faults("req.model == 'a'")

    assert "request, identity, target" in fault.message


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("request.model", Result.BOOL),
        ("tokens.input", Result.STRING),
        ("dyn(request.model)", Result.STRING),
        ("request.?model", Result.STRING),
        ("null", Result.BOOL),
    ],
)
def test_an_expression_of_another_type_is_refused(text: str, result: Result) -> None:
    (fault,) = faults(text, result)

    assert f"must be {result.lower()}" in fault.message


@pytest.mark.parametrize("text", ["", "request.model ==", "(" * 100, "'"])
def test_what_does_not_parse_is_refused(text: str) -> None:
    assert all(0 <= fault.offset <= len(text) for fault in faults(text))


def test_an_invalid_pattern_is_refused_where_it_stands() -> None:
    text = 'request.model.matches("a") || request.model.matches("(")'

    (fault,) = faults(text)

    assert text[fault.offset :].startswith('"("')
    assert "RE2" in fault.message


def test_a_pattern_that_only_other_engines_know_is_refused() -> None:
    assert faults('request.model.matches("a(?=b)")')
