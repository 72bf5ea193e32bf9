"""Callers that the real Envoy has verified: by token (jwt_authn) and by client certificate."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import yaml
from cryptography import x509

from tests.e2e import identities
from tests.e2e.gateway import free_ports
from tests.e2e.identities import Authority, Issuer
from tests.e2e.scripted import ScriptedProvider, chat, scripted_provider, whole
from tests.e2e.stack import Stack
from tests.e2e.test_requests import HELLO, OPENAI

IDP = "https://idp.example"
APP = "spiffe://cluster.local/ns/ml/sa/app"
POLICIES = {
    "rules.yaml": """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: defaults}
spec: {access: deny}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {name: callers}
spec:
  sources:
  - jwt:
      issuers: ["https://idp.example"]
      claims: {user: email, team: realm.team, groups: groups}
  - mtls:
      principals: [{principal: "spiffe://cluster.local/ns/*/sa/app", team: apps}]
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: ann-of-red}
spec:
  effect: allow
  match: >-
    identity.id == "u-1" && identity.user == "ann@example.com" && identity.team == "red" &&
    "ml" in identity.groups && identity.claims.iss == "https://idp.example"
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: apps}
spec: {effect: allow, match: 'identity.team == "apps" && identity.id == source.principal'}
"""
}
ANN: dict[str, Any] = {
    "sub": "u-1",
    "email": "ann@example.com",
    "realm": {"team": "red"},
    "groups": ["ml", "web"],
}
BOB = ANN | {"realm": {"team": "blue"}}
# What somebody may send who takes a header for metadata.
FORGED = {
    "jwt_payload": json.dumps(ANN),
    "x-jwt-payload": base64.b64encode(json.dumps(ANN).encode()).decode(),
    "envoy.filters.http.jwt_authn": json.dumps({"jwt_payload": ANN}),
    "x-envoy-dynamic-metadata": json.dumps({"envoy.filters.http.jwt_authn": {"jwt_payload": ANN}}),
    "x-forwarded-client-cert": f"URI={APP}",
}
# jwt_authn lets this one through whatever its token is; then only the policy stands.
OPTIONAL = {"x-sign-in": "optional"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A stack behind jwt_authn, a second listener of it with TLS, and what is needed to enter."""

    stack: Stack
    tls_port: int
    provider: ScriptedProvider
    issuer: Issuer
    authority: Authority

    def ask(self, token: str = "", **headers: str) -> httpx.Response:
        """One chat completion over plain HTTP."""
        shown = {"authorization": f"Bearer {token}"} if token else {}
        body = {"model": OPENAI, "messages": HELLO}
        return httpx.post(
            f"{self.stack.gateway_url}/v1/chat/completions", json=body, headers=shown | headers, timeout=20
        )

    def ask_by_tls(self, shown: tuple[Path, Path] | None) -> httpx.Response:
        """One chat completion with this client certificate."""
        body = {"model": OPENAI, "messages": HELLO}
        with httpx.Client(verify=identities.client(self.authority.certificate, shown), timeout=20) as client:
            return client.post(f"https://127.0.0.1:{self.tls_port}/v1/chat/completions", json=body)


def verifying(bootstrap: str, issuer: Issuer, tls_port: int, authority: Authority) -> str:
    """What an operator adds: jwt_authn before the policy, and a listener with client certificates."""
    document = yaml.safe_load(bootstrap)
    listeners = document["static_resources"]["listeners"]
    by_tls = copy.deepcopy(listeners[0])
    by_tls["name"] = "tls"
    by_tls["address"]["socket_address"]["port_value"] = tls_port
    by_tls["filter_chains"][0]["transport_socket"] = _tls(authority)
    manager = listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].insert(0, _jwt_authn(issuer))
    listeners.append(by_tls)
    return yaml.safe_dump(document)


def _jwt_authn(issuer: Issuer) -> dict[str, Any]:
    idp = {
        "issuer": issuer.name,
        "local_jwks": {"inline_string": issuer.jwks()},
        "payload_in_metadata": "jwt_payload",
        "forward": True,  # the token is left for the sidecar to remove
    }
    anybody = {"requires_any": {"requirements": [{"provider_name": "idp"}, {"allow_missing_or_failed": {}}]}}
    optional = {"name": "x-sign-in", "string_match": {"exact": "optional"}}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"idp": idp},
            "rules": [
                {"match": {"prefix": "/", "headers": [optional]}, "requires": anybody},
                {"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}},
            ],
        },
    }


def _tls(authority: Authority) -> dict[str, Any]:
    chain, key = authority.certify("gateway", identities.LOOPBACK)
    certificate = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    trusted = {"trusted_ca": {"filename": str(authority.certificate)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [certificate], "validation_context": trusted},
        },
    }


@pytest.fixture(scope="module", params=["native-1.40.0", "stream-1.38.3"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """The whole bootstrap, and the snippet pasted into another."""
    usage, _, version = request.param.partition("-")
    folder = tmp_path_factory.mktemp(request.param)
    (tls_port,) = free_ports(1)
    issuer, authority = Issuer(name=IDP), Authority(folder / "authority")
    with (
        scripted_provider() as provider,
        Stack(
            folder,
            policies=POLICIES,
            envoy=version,
            usage=usage,
            provider_port=provider.port,
            edit=lambda bootstrap: verifying(bootstrap, issuer, tls_port, authority),
        ) as stack,
    ):
        provider.script = chat({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
        yield Gate(stack=stack, tls_port=tls_port, provider=provider, issuer=issuer, authority=authority)


@pytest.fixture(autouse=True)
def nobody_asked(gate: Gate) -> None:
    """Each test sees only its own requests upstream."""
    gate.provider.path, gate.provider.headers = "", {}


def was_not_asked(gate: Gate) -> bool:
    return not gate.provider.path


# --- tokens


def test_the_claims_of_a_verified_token_say_who_is_calling(gate: Gate) -> None:
    url = f"{gate.stack.gateway_url}/v1"
    with openai.OpenAI(base_url=url, api_key=gate.issuer.token(**ANN), max_retries=0) as client:
        answer = client.chat.completions.create(
            model=OPENAI, messages=[{"role": "user", "content": "Say hello."}]
        )

    assert answer.choices[0].message.content == "hello"


def test_a_verified_token_does_not_go_upstream(gate: Gate) -> None:
    token = gate.issuer.token(**ANN)
    body = {"model": "claude-sonnet-4-5", "max_tokens": 8, "messages": HELLO}
    answered = gate.provider.script
    gate.provider.script = whole({"type": "message", "content": []})
    try:
        # Here the provider's key has another header, so that nobody overwrites the caller's.
        answer = httpx.post(
            f"{gate.stack.gateway_url}/v1/messages",
            json=body,
            headers={"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"},
            timeout=20,
        )
    finally:
        gate.provider.script = answered

    assert answer.status_code == 200, answer.text
    assert gate.provider.path == "/v1/messages"
    assert "authorization" not in gate.provider.headers
    assert token not in str(gate.provider.headers)


def test_no_header_changes_what_a_token_says(gate: Gate) -> None:
    assert gate.ask(gate.issuer.token(**ANN), **FORGED).status_code == 200
    answer = gate.ask(gate.issuer.token(**BOB), **FORGED)

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "access_not_granted"


def test_no_header_stands_for_a_token(gate: Gate) -> None:
    answer = gate.ask(**OPTIONAL, **FORGED)

    assert answer.status_code == 401
    assert answer.json()["error"]["message"].startswith(
        "Identity/callers needs a token (JWT) that Envoy verified or a client certificate that it knows"
        " and found none."
    )
    assert was_not_asked(gate)


def wrong_tokens(issuer: Issuer) -> dict[str, str]:
    head, payload, signature = issuer.token(**BOB).split(".")
    anns = issuer.token(**ANN).split(".")[1]
    return {
        "signed by somebody else": Issuer(name=IDP).token(**ANN),
        "of another issuer": issuer.token(**ANN | {"iss": "https://evil.example"}),
        "expired": issuer.token(**ANN | {"exp": int(time.time()) - 3600}),
        "not signed": issuer.token(alg="none", **ANN),
        "with another's claims": f"{head}.{anns}.{signature}",
        "without a signature": f"{head}.{payload}.",
        "no token": "sk-of-a-caller",
    }


def is_envoys_refusal(answer: httpx.Response) -> bool:
    """In its own words, or in the JSON that our whole configuration makes of them."""
    in_words = answer.text.startswith("Jwt")
    return answer.status_code == 401 and (in_words or answer.json()["error"]["code"] == "invalid_token")


def test_a_wrong_token_is_refused_by_envoy_and_never_becomes_somebody(gate: Gate) -> None:
    for what, token in wrong_tokens(gate.issuer).items():
        assert is_envoys_refusal(gate.ask(token, **FORGED)), what
        # Where jwt_authn is told to let it pass, it is nobody's.
        passed = gate.ask(token, **OPTIONAL, **FORGED)
        assert (passed.status_code, passed.json()["error"]["code"]) == (401, "invalid_api_key"), what
    assert is_envoys_refusal(gate.ask())
    assert was_not_asked(gate)


# --- client certificates


def test_a_client_certificate_says_who_is_calling(gate: Gate) -> None:
    assert gate.ask_by_tls(gate.authority.certify("app", x509.UniformResourceIdentifier(APP))).is_success


def test_another_certificate_is_nobodys(gate: Gate) -> None:
    other = gate.authority.certify("other", x509.UniformResourceIdentifier(APP + "2"))
    in_dns = gate.authority.certify("dns", x509.DNSName("app.example"))

    for shown in (None, other, in_dns):
        answer = gate.ask_by_tls(shown)
        assert answer.status_code == 401, shown
        assert "client certificate" in answer.json()["error"]["message"]
    assert was_not_asked(gate)


def test_a_certificate_of_another_authority_gets_no_connection(gate: Gate, tmp_path: Path) -> None:
    evil = Authority(tmp_path / "evil").certify("app", x509.UniformResourceIdentifier(APP))

    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        gate.ask_by_tls(evil)
    assert was_not_asked(gate)
