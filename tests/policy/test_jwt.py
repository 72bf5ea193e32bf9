"""Identity by verified claims: who they name, and that nothing else does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.model import Identity, Source
from extproc.policy.kinds.identity import Recognition
from extproc.policy.kinds.jwt import MAX_CLAIM_CHARACTERS, MAX_CLAIMS, Claims, JwtSource
from tests.policy.conftest import Load
from tests.policy.test_identity import look

MAPPED = """
sources:
  - jwt:
      issuers: ["https://idp.example", "https://other.example"]
      claims: {user: email, team: realm.team, org: "https://example.com/org", groups: realm.roles}
"""
PAYLOAD = {
    "iss": "https://idp.example",
    "sub": "u-1",
    "email": "ann@example.com",
    "exp": 1.8e9,
    "https://example.com/org": "acme",
    "realm": {"team": "red", "roles": ["a", "b"]},
}
TOKEN = {"authorization": "Bearer header.payload.signature"}


def verified(payload: dict[str, Any], name: str = "jwt_payload") -> Source:
    return Source(jwt_payloads={name: payload})


def test_verified_claims_say_who_is_calling_and_the_token_goes_no_further(load: Load) -> None:
    found = look(load, MAPPED, TOKEN, source=verified(PAYLOAD))

    assert found == Recognition(
        caller=Identity(
            id="u-1",
            user="ann@example.com",
            team="red",
            org="acme",
            groups=("a", "b"),
            claims={
                "iss": "https://idp.example",
                "sub": "u-1",
                "email": "ann@example.com",
                "https://example.com/org": "acme",
            },
            authenticated=True,
        ),
        consumed_headers=("authorization",),
    )


def test_without_a_mapping_the_subject_is_the_id_and_no_claim_a_team(load: Load) -> None:
    found = look(load, "sources: [{jwt: {}}]", {}, source=verified({"sub": "u-1", "team": "red"}))

    assert found.caller == Identity(id="u-1", claims={"sub": "u-1", "team": "red"}, authenticated=True)
    assert found.consumed_headers == ()


def test_only_the_header_that_held_the_token_is_removed(load: Load) -> None:
    spec = "sources: [{jwt: {header: x-jwt}}]"
    found = look(load, spec, TOKEN | {"x-jwt": "a.b.c"}, source=verified({"sub": "u-1"}))

    assert found.consumed_headers == ("x-jwt",)


@pytest.mark.parametrize(
    "source",
    [
        Source(),
        verified(PAYLOAD, "other_payload"),
        verified(PAYLOAD | {"iss": "https://idp.example.evil"}),
        verified(PAYLOAD | {"iss": ["https://idp.example"]}),
        verified({name: value for name, value in PAYLOAD.items() if name != "iss"}),
        verified({"iss": "https://idp.example"}),
        verified({"iss": "https://idp.example", "sub": 7}),
        verified({"iss": "https://idp.example", "sub": ""}),
        verified({"iss": "https://idp.example", "sub": "x" * (MAX_CLAIM_CHARACTERS + 1)}),
    ],
)
def test_a_payload_of_nobody_is_none_whatever_the_headers_say(load: Load, source: Source) -> None:
    headers = TOKEN | {"jwt_payload": '{"sub": "u-1"}', "envoy.filters.http.jwt_authn": "u-1"}
    found = look(load, MAPPED, headers, source=source)

    assert (found.refused, found.caller, found.consumed_headers) == (
        Reason.CREDENTIAL_MISSING,
        Identity(),
        (),
    )


def test_who_is_not_known_by_a_token_may_be_by_the_next_source(load: Load) -> None:
    spec = "sources: [{jwt: {issuers: [a], claims: {id: name}}}, {jwt: {issuers: [b]}}, {apiKey: {}}]"

    assert look(load, spec, {}, source=verified({"iss": "a", "name": "n", "sub": "s"})).caller.id == "n"
    assert look(load, spec, {}, source=verified({"iss": "b", "name": "n", "sub": "s"})).caller.id == "s"
    assert look(load, spec, {"x-api-key": "sk-ann"}, source=verified({"iss": "c"})).caller.key == "ann"


def test_a_token_decides_before_a_key_where_it_comes_first(load: Load) -> None:
    spec = "sources: [{jwt: {}}, {apiKey: {}}]"

    assert look(load, spec, {"x-api-key": "sk-ann"}, source=verified({"sub": "s"})).caller.id == "s"


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["a", "b"], ("a", "b")),
        ("a", ("a",)),
        ("a,b", ("a,b",)),
        ([], ()),
        (["a", 1], ()),
        (["a", ""], ()),
        ([["a"]], ()),
        (None, ()),
        ({"a": "b"}, ()),
    ],
)
def test_groups_are_strings_or_none(claim: Any, groups: tuple[str, ...]) -> None:
    caller = JwtSource(claims=Claims(groups="groups")).caller(verified({"sub": "s", "groups": claim}))

    assert caller is not None
    assert caller.groups == groups


@pytest.mark.parametrize("path", ["a.b", "a.b.c", "b", "a.b.", ".a", "sub.x", "list.0"])
def test_a_path_that_leads_to_no_string_is_empty(path: str) -> None:
    payload = {"sub": "s", "a": {"b": {"d": "e"}}, "list": ["x"]}

    caller = JwtSource(claims=Claims(team=path)).caller(verified(payload))

    assert caller is not None
    assert caller.team == ""


def test_a_claim_whose_name_has_dots_comes_before_a_nested_one() -> None:
    source = JwtSource(claims=Claims(team="a.b"))

    caller = source.caller(verified({"sub": "s", "a.b": "named", "a": {"b": "nested"}}))

    assert caller is not None
    assert caller.team == "named"


def test_claims_are_bounded_in_number_and_never_cut() -> None:
    many = {f"c{number:03}": "x" for number in reversed(range(MAX_CLAIMS + 9))}
    long = {"a": "x" * (MAX_CLAIM_CHARACTERS + 1), "b": "x" * MAX_CLAIM_CHARACTERS}

    caller = JwtSource(claims=Claims(id="c000")).caller(verified(many | long))

    assert caller is not None
    assert list(caller.claims) == ["b", *(f"c{number:03}" for number in range(MAX_CLAIMS - 1))]


NAMES = st.sampled_from(["iss", "sub", "a", "b", "a.b", "", "\u6771"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text("a.\u6771\0", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(NAMES, JSON))
def test_no_payload_makes_it_fail_and_every_text_is_one(payload: dict[str, Any]) -> None:
    claims = Claims(user="a", team="a.b", org="a.a.b", groups="a.b")

    caller = JwtSource(claims=claims).caller(verified(payload))

    if caller is not None:
        assert caller.id
        texts = (caller.id, caller.user, caller.team, caller.org, *caller.groups, *caller.claims.values())
        assert all(isinstance(text, str) for text in texts)
