"""Identity by client certificate: which principal is whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Reason
from extproc.model import Identity, Source
from extproc.policy.kinds.identity import Recognition
from extproc.policy.kinds.mtls import Principal
from tests.policy.conftest import Load
from tests.policy.test_identity import look

SPEC = """
sources:
  - mtls:
      principals:
        - principal: spiffe://cluster.local/ns/ml/sa/app
          team: ml
          user: app
          groups: [a]
          labels: {tier: gold}
        - {principal: "spiffe://cluster.local/ns/*/sa/app", team: apps, org: acme}
  - apiKey: {}
"""


def by(principal: str) -> Source:
    return Source(address="10.0.0.1", principal=principal)


def test_a_certificates_owner_is_who_the_policy_says(load: Load) -> None:
    found = look(load, SPEC, {"accept": "*/*"}, source=by("spiffe://cluster.local/ns/ml/sa/app"))

    assert found == Recognition(
        caller=Identity(
            id="spiffe://cluster.local/ns/ml/sa/app",
            user="app",
            team="ml",
            groups=("a",),
            labels={"tier": "gold"},
            authenticated=True,
        )
    )


def test_a_star_is_any_one_segment_and_the_id_the_whole_principal(load: Load) -> None:
    caller = look(load, SPEC, {}, source=by("spiffe://cluster.local/ns/web/sa/app")).caller

    assert caller == Identity(
        id="spiffe://cluster.local/ns/web/sa/app", team="apps", org="acme", authenticated=True
    )


@pytest.mark.parametrize(
    "principal",
    [
        "",
        "spiffe://cluster.local/ns//sa/app",
        "spiffe://cluster.local/ns/a/b/sa/app",
        "spiffe://cluster.local/ns/a/sa/app/",
        "spiffe://cluster.local/ns/a/sa/app2",
        "spiffe://cluster.local/ns/a/sa/App",
        "spiffe://cluster.local.evil/ns/a/sa/app",
        "x/spiffe://cluster.local/ns/a/sa/app",
        "spiffe://cluster.local/ns/a/sa",
    ],
)
def test_another_certificate_is_nobodys_whatever_the_headers_say(load: Load, principal: str) -> None:
    forged = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/ml/sa/app"}

    assert look(load, SPEC, forged, source=by(principal)).refused is Reason.CREDENTIAL_MISSING
    assert look(load, SPEC, forged | {"x-api-key": "sk-ann"}, source=by(principal)).caller.key == "ann"


SEGMENTS = st.lists(st.sampled_from(["", "a", "b", "*"]), max_size=4)


@given(SEGMENTS, SEGMENTS)
def test_a_pattern_means_the_principals_that_differ_only_at_its_stars(
    wanted: list[str], shown: list[str]
) -> None:
    pattern = Principal(principal="/".join(["x:", *wanted]))

    fits = len(wanted) == len(shown) and all(
        want == got or (want == "*" and got) for want, got in zip(wanted, shown, strict=False)
    )
    assert pattern.means("/".join(["x:", *shown])) is bool(fits)
