import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.model import Identity, RequestHead, Source
from extproc.policy import denials
from extproc.policy.kinds.identity import Recognition, path_without, recognise
from tests.policy.conftest import Load

AT_NS = 1_800_000_000 * 10**9  # 2027-01-15


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = (
    (
        "ApiKey",
        "ann",
        f"{{sha256: {digest('sk-ann')}, user: ann, team: red, groups: [a, b], labels: {{tier: gold}}}}",
    ),
    ("ApiKey", "bob", f"{{sha256: {digest('sk-bob')}, user: bob, disabled: true}}"),
    ("ApiKey", "old", f'{{sha256: {digest("sk-old")}, expires: "2027-01-15T09:00:00+01:00"}}'),
    ("ApiKey", "new", f'{{sha256: {digest("sk-new")}, expires: "2027-01-15T09:00:00.000001+01:00"}}'),
)


def look(
    load: Load, spec: str, headers: dict[str, str], *, path: str = "/v1/x", source: Source | None = None
) -> Recognition:
    policies = load(*KEYS, ("Identity", "callers", spec))
    head = RequestHead(method="POST", host="h", path=path, headers=headers, source=source or Source())
    assert policies.identity is not None
    return recognise(policies.identity.spec, policies.keys, head, AT_NS)


USUAL = "sources: [{apiKey: {}}]"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", "Bearer sk-ann"),
        ("authorization", "bearer  sk-ann "),
        ("x-api-key", "sk-ann"),
        ("api-key", "sk-ann"),
        ("x-goog-api-key", "sk-ann"),
    ],
)
def test_a_key_is_known_wherever_an_sdk_puts_it(load: Load, header: str, value: str) -> None:
    found = look(load, USUAL, {header: value, "accept": "*/*"})

    assert found.caller == Identity(
        id="ann", user="ann", team="red", groups=("a", "b"), labels={"tier": "gold"}, key="ann",
        authenticated=True,
    )  # fmt: skip
    assert found.refused is None
    assert found.consumed_headers == (header,)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Bearer sk-nobody", Reason.CREDENTIAL_INVALID),
        ("Bearer sk-bob", Reason.CREDENTIAL_DISABLED),
        ("Bearer sk-old", Reason.CREDENTIAL_EXPIRED),
        ("Bearer sk-ann, Bearer sk-ann", Reason.CREDENTIAL_INVALID),
        ("Bearer " + digest("sk-ann"), Reason.CREDENTIAL_INVALID),
        ("Bearer \udcff", Reason.CREDENTIAL_INVALID),
        ("Basic sk-ann", Reason.CREDENTIAL_MISSING),
        ("Bearer", Reason.CREDENTIAL_MISSING),
        ("sk-ann", Reason.CREDENTIAL_MISSING),
        ("", Reason.CREDENTIAL_MISSING),
    ],
)
def test_who_is_not_known_is_nobody(load: Load, value: str, reason: Reason) -> None:
    found = look(load, USUAL, {"authorization": value})

    assert (found.refused, found.caller) == (reason, Identity())


def test_a_key_counts_until_the_instant_it_expires(load: Load) -> None:
    assert look(load, USUAL, {"x-api-key": "sk-new"}).refused is None


def test_nobody_without_a_credential_may_be_anonymous_where_the_policy_says_so(load: Load) -> None:
    spec = "{sources: [{apiKey: {}}], anonymous: allow}"

    assert look(load, spec, {}) == Recognition()
    assert look(load, spec, {"x-api-key": "sk-nobody"}).refused is Reason.CREDENTIAL_INVALID


def test_every_place_that_held_a_credential_is_consumed(load: Load) -> None:
    found = look(load, USUAL, {"authorization": "Bearer other", "x-api-key": "sk-ann"})

    assert found.caller.user == "ann"
    assert found.consumed_headers == ("authorization", "x-api-key")


def test_a_header_that_the_source_does_not_name_is_nobodys_business(load: Load) -> None:
    spec = "sources: [{apiKey: {header: x-gateway-key}}]"
    found = look(load, spec, {"authorization": "Bearer sk-provider", "x-gateway-key": "sk-ann"})

    assert (found.caller.user, found.consumed_headers) == ("ann", ("x-gateway-key",))


def test_authorization_has_a_scheme_even_where_the_policy_names_none(load: Load) -> None:
    spec = "sources: [{apiKey: {header: authorization}}]"

    assert look(load, spec, {"authorization": "Bearer sk-ann"}).caller.user == "ann"
    assert look(load, spec, {"authorization": "sk-ann"}).refused is Reason.CREDENTIAL_MISSING


def test_a_key_in_the_query_is_known_and_leaves_the_path(load: Load) -> None:
    spec = "sources: [{apiKey: {query: key}}]"
    found = look(load, spec, {}, path="/v1/x?a=1&k%65y=sk%2Dann&b")

    assert (found.caller.user, found.consumed_query) == ("ann", "key")
    assert path_without("/v1/x?a=1&k%65y=sk%2Dann&b", "key") == "/v1/x?a=1&b"


def test_a_key_that_is_twice_in_the_query_is_invalid(load: Load) -> None:
    found = look(load, "sources: [{apiKey: {query: key}}]", {}, path="/v1/x?key=sk-ann&key=sk-ann")

    assert found.refused is Reason.CREDENTIAL_INVALID


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "key", "k%65y", "K"]), st.text("x=%2", max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_only_the_credential_leaves_the_query(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    kept = "&".join(f"{name}={value}" for name, value in pairs if name in ("a", "K"))

    assert path_without(f"/p?{query}", "key") == (f"/p?{kept}" if kept else "/p")


HEADERS = """
sources:
  - headers:
      trustedFrom: {addresses: [10.0.0.0/8, "2001:db8::/32"], principals: ["spiffe://x/gw"]}
      user: x-user
      team: x-team
      groups: x-groups
"""
GATEWAY = Source(address="10.1.2.3", principal="spiffe://x/gw")
CLAIMS = {"x-user": "ann", "x-team": "red", "x-groups": "a, b,", "x-other": "o"}


@pytest.mark.parametrize("address", ["10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3"])
def test_a_trusted_peer_says_who_is_calling(load: Load, address: str) -> None:
    found = look(load, HEADERS, CLAIMS, source=Source(address=address, principal="spiffe://x/gw"))

    assert found.caller == Identity(id="ann", user="ann", team="red", groups=("a", "b"), authenticated=True)
    assert found.consumed_headers == ("x-user", "x-team", "x-groups")


@pytest.mark.parametrize(
    "source",
    [
        Source(),
        Source(address="11.1.2.3", principal="spiffe://x/gw"),
        Source(address="10.1.2.3"),
        Source(address="10.1.2.3", principal="spiffe://x/gw2"),
        Source(address="10.1.2.3:80", principal="spiffe://x/gw"),
    ],
)
def test_nobody_else_chooses_a_team(load: Load, source: Source) -> None:
    found = look(load, HEADERS, CLAIMS, source=source)

    assert (found.refused, found.caller) == (Reason.CREDENTIAL_MISSING, Identity())


def test_the_first_source_with_a_credential_decides(load: Load) -> None:
    both = "sources:\n  - apiKey: {}\n" + HEADERS.replace("sources:\n", "").lstrip("\n")

    assert look(load, both, CLAIMS, source=GATEWAY).caller.user == "ann"
    assert look(load, both, CLAIMS | {"x-api-key": "x"}, source=GATEWAY).refused is Reason.CREDENTIAL_INVALID


EVERY = """
[{apiKey: {}}, {jwt: {}}, {mtls: {principals: [{principal: "spiffe://x/a"}]}},
 {headers: {user: x-user, trustedFrom: {addresses: [10.0.0.0/8]}}}]
"""
CERTIFICATE_OR_HEADERS = ", a client certificate that it knows or identity headers from a peer that it trusts"


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        ("[]", "a credential"),
        ("[{apiKey: {}}, {apiKey: {query: key}}]", "an API key of this gateway"),
        ("[{jwt: {}}, {apiKey: {}}]", "a token (JWT) that Envoy verified or an API key of this gateway"),
        (EVERY, "an API key of this gateway, a token (JWT) that Envoy verified" + CERTIFICATE_OR_HEADERS),
    ],
)
def test_a_denial_names_everything_that_would_do(load: Load, sources: str, wanted: str) -> None:
    policies = load(("Identity", "callers", f"{{sources: {sources.strip()}}}"))

    assert policies.identity is not None
    assert policies.identity.spec.wanted == wanted
    assert denials.identity(policies.identity.ref, Reason.CREDENTIAL_MISSING, wanted) == (
        401,
        f"Identity/callers needs {wanted} and found none.",
    )
