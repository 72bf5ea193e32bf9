from hypothesis import given
from hypothesis import strategies as st

from extproc.model import AIRequest, Identity, RequestHead, Source, TokenEstimate
from extproc.policy import facts

CREDENTIALS = {
    "authorization": "Bearer secret-1",
    "proxy-authorization": "Basic secret-2",
    "cookie": "session=secret-3",
    "x-api-key": "secret-4",
    "api-key": "secret-5",
    "x-goog-api-key": "secret-6",
    "x-gateway-key": "secret-7",
}


def test_no_credential_is_among_the_facts() -> None:
    head = RequestHead(
        method="POST", host="h", path="/v1/x?key=secret-8", headers=CREDENTIALS | {"x-team": "a"}
    )

    built = facts.build(head, Identity(), None, TokenEstimate(), 0, withheld=("x-gateway-key",))

    assert dict(built.request.headers) == {"x-team": "a"}
    assert built.request.path == "/v1/x"
    assert "secret" not in str(built)


def test_a_decision_keeps_no_payload_of_a_token() -> None:
    source = Source(
        address="10.0.0.1", principal="spiffe://x/a", jwt_payloads={"jwt_payload": {"sub": "ann"}}
    )
    head = RequestHead(method="POST", host="h", path="/v1/x", source=source)

    kept = facts.without_credentials(head)

    assert kept.source == Source(address="10.0.0.1", principal="spiffe://x/a")


def test_the_target_is_the_requests_where_nothing_routes() -> None:
    request = AIRequest(api="openai_chat", provider="openai", operation="chat", model="m", models=("m", "n"))
    head = RequestHead(method="POST", host="h", path="/", source=Source(address="10.0.0.1", route="ai"))

    built = facts.build(head, Identity(), request, TokenEstimate(input=3), 1_000_000_001)

    assert (built.target.model, built.target.provider) == ("m", "openai")
    assert (built.now.seconds, built.now.nanos) == (1, 1)
    assert (built.source.address, built.source.route) == ("10.0.0.1", "ai")


def test_the_facts_about_another_model_differ_in_the_model_alone() -> None:
    request = AIRequest(api="openai_chat", provider="openai", operation="chat", model="m", models=("m", "n"))
    built = facts.build(
        RequestHead(method="POST", host="h", path="/"), Identity(), request, TokenEstimate(), 0
    )

    other = facts.about_model(built, "n")

    assert (other.request.model, other.target.model, list(other.request.models)) == ("n", "n", ["m", "n"])
    assert built.request.model == "m"


@given(st.text(alphabet=st.characters()), st.integers(min_value=0))
def test_no_text_and_no_number_of_a_request_makes_building_fail(text: str, number: int) -> None:
    head = RequestHead(method=text, host=text, path=text, headers={"x": text})
    request = AIRequest(
        api="openai_chat", provider="openai", operation="chat", model=text, models=(text,), tools=(text,),
        end_user=text, choices=number, message_count=number, body_bytes=number,
    )  # fmt: skip

    facts.build(head, Identity(user=text), request, TokenEstimate(input=number, max_output=number), 0)
