"""What a folder that loads has to say about itself, with the place and the whole sentence."""

from pathlib import Path

import pytest

from extproc.decision import PolicyRef
from extproc.errors import Problem
from extproc.policy import overlaps, policyset
from extproc.policy.policyset import PolicySet
from tests.policy.conftest import write

NOW_NS = 1_790_000_000 * 10**9  # in September 2026
HEAD = "apiVersion: ai-policy/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
SHA = "sha256: " + "a" * 64
OPEN = ("Defaults", "main", "{access: allow}")
CLOSED = ("Defaults", "main", "{}")
RULE = ("AccessRule", "all", "{effect: allow}")
BY_KEY = ("Identity", "callers", "{sources: [{apiKey: {}}]}")
DEMO = ("ApiKey", "demo", f"{{{SHA}, user: eve, team: demo, labels: {{tier: gold}}}}")

Object = tuple[str, str, str]


def folder(tmp_path: Path, *objects: Object) -> PolicySet:
    """Five lines an object, each in a document of `a.yaml`, the first from line 1 on."""
    text = "---\n".join(HEAD.format(kind=kind, name=name, spec=spec) for kind, name, spec in objects)
    write(tmp_path, {"a.yaml": text})
    return policyset.load(tmp_path)


def said(problems: tuple[Problem, ...]) -> list[str]:
    return [f"{p.line}:{p.column}: {p.message}" for p in problems]


CASES: dict[str, tuple[list[Object], list[str]]] = {
    "no rule allows anything": (
        [("Defaults", "main", "{access: deny}")],
        ["4:16: no request passes: access is deny, and no AccessRule allows anything"],
    ),
    "every rule that allows is in shadow": (
        [CLOSED, ("AccessRule", "a", "{effect: allow, mode: shadow}")],
        ["3:18: no request passes: access is deny, and every AccessRule that allows is in shadow"],
    ),
    "rules that allow where everything passes": (
        [OPEN, RULE, ("AccessRule", "b", "{effect: allow, match: request.stream}")],
        [
            (
                "4:16: access: allow lets everything pass that no rule denies, so AccessRule/all "
                "(a.yaml:6) and 1 more allow nothing more"
            ),
            "14:30: AccessRule/b can never matter: AccessRule/all (a.yaml:6) allows all that it would allow",
        ],
    ),
    "a folder that only watches": (
        [OPEN, ("RateLimit", "r", "{limit: {tokens: 5, per: 1m}, mode: shadow}")],
        ["4:16: nothing is enforced: every policy is in shadow or disabled"],
    ),
    "a key that is the same for every request": (
        [OPEN, ("RateLimit", "r", "{key: ['\"team\"'], limit: {tokens: 5, per: 1m}}")],
        ["9:14: this is the same for every request; name a fact, such as identity.team"],
    ),
    "a part of a key that is there twice": (
        [OPEN, ("RateLimit", "r", "{key: [target.model, target.model], limit: {tokens: 5, per: 1m}}")],
        ["9:28: target.model is there twice and makes no other counters"],
    ),
    "a key that nothing sets": (
        [OPEN, ("RateLimit", "r", "{key: [target.cluster], limit: {tokens: 5, per: 1m}}")],
        ["9:14: target.cluster is always empty, as nothing routes"],
    ),
    "a key that no caller has": (
        [OPEN, BY_KEY, DEMO, ("RateLimit", "r", "{key: [identity.org], limit: {tokens: 5, per: 1m}}")],
        [
            (
                "19:14: identity.org is always empty: no ApiKey and no source of an Identity "
                "says org, so all share a counter"
            )
        ],
    ),
    "a key of callers where nobody is recognised": (
        [OPEN, ("RateLimit", "r", "{key: [identity.team], limit: {tokens: 5, per: 1m}}")],
        [
            (
                "9:14: identity.team is always empty: no ApiKey and no source of an Identity "
                "says team, so all share a counter"
            )
        ],
    ),
    "a team that nobody is in": (
        [CLOSED, BY_KEY, DEMO, ("AccessRule", "a", "{effect: allow, match: 'identity.team == \"dmeo\"'}")],
        ["19:48: identity.team is never 'dmeo'; ApiKeys and Identity say demo; did you mean `demo`?"],
    ),
    "a team in a list that nobody is in": (
        [
            CLOSED,
            BY_KEY,
            DEMO,
            ("AccessRule", "a", '{effect: allow, match: \'identity.team in ["demo", "ops"]\'}'),
        ],
        ["19:57: identity.team is never 'ops'; ApiKeys and Identity say demo"],
    ),
    "a label that no key has": (
        [
            CLOSED,
            BY_KEY,
            DEMO,
            ("AccessRule", "a", "{effect: allow, match: 'identity.labels.teir == \"gold\"'}"),
        ],
        ["19:46: no caller has the label 'teir'; ApiKeys and Identity say tier; did you mean `tier`?"],
    ),
    "a label that no key has, read with care": (
        [
            CLOSED,
            BY_KEY,
            DEMO,
            ("AccessRule", "a", '{effect: allow, match: \'identity.labels[?"teir"].orValue("") == "gold"\'}'),
        ],
        ["19:48: no caller has the label 'teir'; ApiKeys and Identity say tier; did you mean `tier`?"],
    ),
    "claims where no token is read": (
        [
            CLOSED,
            BY_KEY,
            DEMO,
            ("AccessRule", "a", '{effect: allow, match: \'identity.claims["sub"] == "gold"\'}'),
        ],
        ["19:47: identity.claims is always empty: no source of an Identity is a jwt"],
    ),
    "a source of keys without a key": ([OPEN, BY_KEY], ["9:27: there is no ApiKey, so no key is ever known"]),
    "nobody can call": (
        [OPEN, ("Identity", "i", "{sources: []}")],
        ["9:17: nobody can call: there is no source, and anonymous is deny"],
    ),
    "keys that no source reads": (
        [
            OPEN,
            DEMO,
            ("ApiKey", "x", "{sha256: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}"),
        ],
        ["8:18: nobody can use ApiKey/demo, nor 1 more: no Identity has a source apiKey"],
    ),
    "a token that is taken for a key": (
        [OPEN, DEMO, ("Identity", "i", "{sources: [{apiKey: {}}, {jwt: {}}]}")],
        [
            (
                "14:38: an apiKey source above takes every bearer token in authorization for a "
                "key; put this one first"
            )
        ],
    ),
    "a source that is there twice": (
        [OPEN, DEMO, ("Identity", "i", "{sources: [{apiKey: {query: key}}, {apiKey: {query: key}}]}")],
        ["14:42: this source is there twice"],
    ),
    "identity headers from everybody": (
        [
            OPEN,
            (
                "Identity",
                "i",
                "{sources: [{headers: {user: x-user, trustedFrom: {addresses: [10.0.0.0/8, 0.0.0.0/0]}}}]}",
            ),
        ],
        ["9:81: everybody is trusted: any client can say who it is"],
    ),
    "a key that has expired": (
        [
            OPEN,
            BY_KEY,
            (
                "ApiKey",
                "x",
                (
                    "{sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, "
                    "expires: '2026-01-31T00:00:00Z'}"
                ),
            ),
        ],
        ["14:91: ApiKey/x has expired; whoever shows it is refused"],
    ),
    "a cap that offers the model it counts": (
        [
            OPEN,
            (
                "UsageCap",
                "u",
                (
                    "{match: 'request.model == \"gpt-4o\"', limit: {tokens: 5}, period: day, "
                    "onExceed: {useModel: gpt-4o}}"
                ),
            ),
        ],
        ["9:98: UsageCap/u never denies: it counts only requests for the model that it would offer instead"],
    ),
    "a provider at the place of another one": (
        [
            OPEN,
            ("Provider", "p", "{provider: one, hosts: [h], formats: [openai_chat]}"),
            ("Provider", "q", "{provider: two, hosts: [h], formats: [openai_responses, openai_chat]}"),
        ],
        ["14:63: Provider/p (a.yaml:6) speaks openai_chat at the same place and comes first"],
    ),
    "a match that contradicts itself": (
        [
            OPEN,
            ("AccessRule", "a", '{effect: deny, match: \'request.model == "a" && request.model == "b"\'}'),
        ],
        ["9:29: AccessRule/a never matches: no request makes this true"],
    ),
    "a match that is false": (
        [OPEN, ("RateLimit", "a", "{match: 'false', limit: {tokens: 5, per: 1m}}")],
        ["9:15: RateLimit/a never matches: no request makes this true"],
    ),
    "a match that asks for a thing and its opposite": (
        [OPEN, ("RequestCap", "a", "{match: 'request.stream && !request.stream', inputTokens: 5}")],
        ["9:15: RequestCap/a never matches: no request makes this true"],
    ),
    "a rule that a deny of everything beats": (
        [CLOSED, RULE, ("AccessRule", "none", "{effect: deny}")],
        ["8:18: AccessRule/all can never matter: AccessRule/none (a.yaml:11) denies all that it would allow"],
    ),
    "a rule that another one makes needless": (
        [CLOSED, RULE, ("AccessRule", "b", "{effect: allow, match: request.stream}")],
        ["14:30: AccessRule/b can never matter: AccessRule/all (a.yaml:6) allows all that it would allow"],
    ),
    "a rule all of whose models are denied": (
        [
            CLOSED,
            ("AccessRule", "a", '{effect: allow, match: \'request.model in ["a", "b"] && request.stream\'}'),
            (
                "AccessRule",
                "z",
                '{effect: deny, match: \'request.model == "a" || request.model in ["b","c"]\'}',
            ),
            ("AccessRule", "y", "{effect: allow, match: 'request.model == \"d\"'}"),
        ],
        ["9:30: AccessRule/a can never matter: AccessRule/z (a.yaml:11) denies all that it would allow"],
    ),
    "a model whose whole family is allowed": (
        [
            CLOSED,
            ("AccessRule", "a", "{effect: allow, match: 'request.model == \"gpt-4o\"'}"),
            ("AccessRule", "z", "{effect: allow, match: 'request.model.startsWith(\"gpt-\")'}"),
        ],
        ["9:30: AccessRule/a can never matter: AccessRule/z (a.yaml:11) allows all that it would allow"],
    ),
    "a model whose whole family is denied": (
        [
            OPEN,
            ("AccessRule", "a", "{effect: deny, match: 'request.model == \"gpt-4o\"'}"),
            ("AccessRule", "z", "{effect: deny, match: 'request.model.startsWith(\"gpt-\")'}"),
        ],
        ["9:29: AccessRule/a can never matter: AccessRule/z (a.yaml:11) denies all that it would deny"],
    ),
    "a limit that is there twice": (
        [
            OPEN,
            ("RateLimit", "a", "{limit: {tokens: 5, per: 1m}}"),
            ("RateLimit", "b", "{limit: {tokens: 5, per: 1m}}"),
        ],
        ["13:18: RateLimit/b counts and allows the same as RateLimit/a (a.yaml:6)"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_advice_is_given_where_it_belongs(tmp_path: Path, name: str) -> None:
    objects, expected = CASES[name]

    assert said(folder(tmp_path, *objects).warnings(NOW_NS)) == expected


L = "{%s, limit: {tokens: 5, per: 1m}}"

SILENT: dict[str, list[Object]] = {
    "a team that some key is in": [
        CLOSED,
        BY_KEY,
        DEMO,
        ("AccessRule", "a", """{effect: allow, match: 'identity.team == "demo" || identity.team == ""'}"""),
    ],
    "a team that tokens may say": [
        CLOSED,
        ("Identity", "i", "{sources: [{jwt: {claims: {team: team}}}]}"),
        (
            "AccessRule",
            "a",
            """{effect: allow, match: 'identity.team == "x" && identity.claims.aud == "y"'}""",
        ),
        ("RateLimit", "r", L % "key: [identity.team]"),
    ],
    "a team that headers may say": [
        CLOSED,
        ("Identity", "i", "{sources: [{headers: {team: x-team, trustedFrom: {principals: [a]}}}]}"),
        ("AccessRule", "a", """{effect: allow, match: 'identity.team == "x"'}"""),
    ],
    "a token before a key": [CLOSED, RULE, DEMO, ("Identity", "i", "{sources: [{jwt: {}}, {apiKey: {}}]}")],
    "a key that expires later": [
        OPEN,
        BY_KEY,
        ("ApiKey", "x", f"{{{SHA}, expires: '2036-01-31T00:00:00Z'}}"),
    ],
    "a key that expired and is disabled": [
        OPEN,
        BY_KEY,
        ("ApiKey", "x", f"{{{SHA}, disabled: true, expires: '2016-01-31T00:00:00Z'}}"),
    ],
    "everybody, where a certificate vouches": [
        OPEN,
        (
            "Identity",
            "i",
            (
                "{sources: [{headers: {user: u, trustedFrom: {addresses: [0.0.0.0/0], "
                "principals: [spiffe://x]}}}]}"
            ),
        ),
    ],
    "an identity that is disabled": [
        CLOSED,
        RULE,
        ("Identity", "i", "{mode: disabled}"),
        ("RateLimit", "r", L % "key: [identity.team]"),
    ],
    "what is disabled": [CLOSED, RULE, ("AccessRule", "b", "{effect: deny, match: 'false', mode: disabled}")],
    "a narrower deny that says more": [
        CLOSED,
        RULE,
        ("AccessRule", "b", """{effect: deny, match: 'request.model == "a"', message: Ask us.}"""),
        ("AccessRule", "c", """{effect: deny, match: 'request.model in ["a", "b"]'}"""),
    ],
    "a narrower deny that also denies what it cannot read": [
        CLOSED,
        RULE,
        (
            "AccessRule",
            "b",
            """{effect: deny, match: 'request.model == "a" && request.headers["x"] == "y"'}""",
        ),
        ("AccessRule", "c", """{effect: deny, match: 'request.model in ["a", "b"]'}"""),
    ],
    "a narrower rule on trial": [
        CLOSED,
        RULE,
        ("AccessRule", "b", """{effect: deny, match: 'request.model == "a"', mode: shadow}"""),
        ("AccessRule", "c", """{effect: deny, match: 'request.model in ["a", "b"]'}"""),
    ],
    "a tight limit that an override may lift": [
        OPEN,
        ("RateLimit", "a", "{limit: {tokens: 5, per: 1m}}"),
        ("RateLimit", "b", "{limit: {tokens: 50, per: 1m}}"),
    ],
    "two models of one request": [
        CLOSED,
        ("AccessRule", "a", """{effect: allow, match: '"a" in request.models && "b" in request.models'}"""),
    ],
    "a cap that also counts the model it offers": [
        OPEN,
        (
            "UsageCap",
            "u",
            (
                """{match: 'request.model.startsWith("gpt")', limit: {tokens: 5}, period: day,"""
                " onExceed: {useModel: gpt-4o}}"
            ),
        ),
    ],
    "providers at other paths": [
        OPEN,
        ("Provider", "p", "{provider: one, hosts: [h], basePath: /a, formats: [openai_chat]}"),
        ("Provider", "q", "{provider: two, hosts: [h], formats: [openai_chat]}"),
    ],
}


@pytest.mark.parametrize("name", SILENT)
def test_what_may_be_meant_gives_no_alarm(tmp_path: Path, name: str) -> None:
    assert said(folder(tmp_path, *SILENT[name]).warnings(NOW_NS)) == []


def test_the_samples_need_no_advice(samples: PolicySet) -> None:
    assert samples.advice == ()


@pytest.mark.parametrize(("operator", "is_compared"), [("&&", True), ("||", False)])
def test_no_more_is_compared_than_takes_a_second(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    is_compared: bool,  # noqa: FBT001
) -> None:
    """Alternatives are compared one by one: a folder of a few hundred such rules would hold up requests."""
    monkeypatch.setattr(overlaps, "_MOST_PAIRS", 10)
    teams = {"narrow": '["a"]', "wide": '["a", "b"]'}
    rules = [
        (
            "AccessRule",
            name,
            f"""{{effect: allow, match: 'identity.team in {team} {operator} request.model == "m"'}}""",
        )
        for name, team in teams.items()
    ]

    found = said(folder(tmp_path, CLOSED, BY_KEY, *rules).warnings(NOW_NS))

    assert any("AccessRule/narrow can never matter" in each for each in found) is is_compared


def test_a_key_has_expired_from_its_time_on(tmp_path: Path) -> None:
    policies = folder(tmp_path, OPEN, BY_KEY, ("ApiKey", "x", f"{{{SHA}, expires: '2026-09-21T14:13:20Z'}}"))

    assert policies.warnings(NOW_NS - 1) == ()
    assert [p.message for p in policies.warnings(NOW_NS)] == [
        "ApiKey/x has expired; whoever shows it is refused"
    ]


def test_advice_keeps_no_folder_from_loading(tmp_path: Path) -> None:
    policies = folder(tmp_path, ("Defaults", "main", "{access: deny}"))

    assert policies.warnings(NOW_NS)
    assert [item.ref for item in policies.objects] == [PolicyRef("Defaults", "main")]
