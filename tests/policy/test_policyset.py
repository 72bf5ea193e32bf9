import json
from pathlib import Path

import pytest

from extproc.decision import Mode, PolicyRef
from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.policy.difference import Difference, diff
from extproc.policy.kinds import KINDS
from extproc.policy.kinds.rate_limit import RateLimit
from extproc.policy.policyset import SILENT, STAGES, PolicySet
from tests.policy.conftest import DEFAULTS, Load, Problems, write, written

KEY = "a" * 64


def test_the_sample_folder_shows_every_kind(samples: PolicySet) -> None:
    assert {item.ref.kind for item in samples.objects} == set(KINDS)
    assert samples.defaults.max_body_bytes == 32 * 1024 * 1024


def test_every_kind_has_a_place_in_the_order_of_a_request_or_is_silent() -> None:
    assert set(STAGES) | SILENT == set(KINDS)
    assert not SILENT & set(STAGES)


def test_only_policy_files_directly_in_the_folder_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": DEFAULTS, "notes.txt": "x: [", ".hidden.yaml": "x: [", "..old.yaml": "x: ["})
    (tmp_path / "tests").mkdir()
    write(tmp_path / "tests", {"b.yaml": "x: ["})

    assert [str(item.ref) for item in policyset.load(tmp_path).objects] == ["Defaults/main"]


def test_a_config_map_mounted_by_kubernetes_loads(tmp_path: Path) -> None:
    data = tmp_path / "..2026_11_20"
    data.mkdir()
    write(data, {"a.yaml": DEFAULTS})
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    assert policyset.load(tmp_path).defaults_object.file == "a.yaml"


def test_the_revision_is_the_content(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": DEFAULTS})
    first = policyset.load(tmp_path).revision
    write(tmp_path, {"notes.txt": "anything"})
    unchanged = policyset.load(tmp_path).revision
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    renamed = policyset.load(tmp_path).revision
    write(tmp_path, {"b.yaml": DEFAULTS + "# a comment\n"})
    edited = policyset.load(tmp_path).revision

    assert len(first) == 12
    assert first == unchanged
    assert len({first, renamed, edited}) == 3


@pytest.mark.parametrize("is_there", [True, False])
def test_an_empty_or_vanished_folder_is_an_error(tmp_path: Path, *, is_there: bool) -> None:
    folder = tmp_path / "policies"
    if is_there:
        folder.mkdir()

    with pytest.raises(PolicyFolderInvalid) as caught:
        policyset.load(folder)

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].file == str(folder)


def test_a_dangling_link_is_a_problem(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")

    assert [(p.file, "cannot be read" in p.message) for p in problems()] == [("a.yaml", True)]


def test_a_folder_without_defaults_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": written("AccessRule", "a", "effect: allow")})

    with pytest.raises(PolicyFolderInvalid, match="exactly one object of kind Defaults"):
        policyset.load(tmp_path)


def test_all_problems_of_all_files_are_told_at_once(problems: Problems) -> None:
    found = problems(
        a="""\
            apiVersion: ai-policy/v2
            kind: RateLimit
            metadata: {name: Team_tokens, nam: x}
            spec:
              match: request.operation == "chatt"
              key: [identity.team, tokens.input]
              limit: {tokens: 0, per: 1min, bursts: 4}
              mode: off
            ---
            kind: Quota
            metadata: 3
            """,
        b="a: [1\n",
    )

    assert [(p.file, p.line, p.column) for p in found] == [
        ("a.yaml", 1, 13),
        ("a.yaml", 3, 18),
        ("a.yaml", 3, 31),
        ("a.yaml", 5, 31),
        ("a.yaml", 6, 24),
        ("a.yaml", 7, 19),
        ("a.yaml", 7, 27),
        ("a.yaml", 7, 33),
        ("a.yaml", 8, 9),
        ("a.yaml", 10, 1),
        ("a.yaml", 10, 7),
        ("a.yaml", 11, 11),
        ("b.yaml", 2, 1),
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("AccessRule", "efect: allow", "the fields are description, mode, effect, match, message, onError"),
        ("AccessRule", "match: 'true'", "'effect' is missing"),
        ("AccessRule", "{effect: allow, match: true}", 'must be a string; for example "true" in quotes'),
        ("AccessRule", "{effect: allow, match: }", "has no value"),
        ("AccessRule", "{effect: maybe}", "allow or deny"),
        ("AccessRule", "{effect: allow, mode: off}", "enforce, shadow or disabled"),
        ("RateLimit", "{limit: {per: 1m}}", "exactly one of requests, tokens"),
        ("RateLimit", "{limit: {tokens: 1, requests: 1, per: 1m}}", "exactly one of requests, tokens"),
        ("RateLimit", "{limit: {tokens: 0, per: 1m}}", "at least 1"),
        ("RateLimit", "{limit: {tokens: -5, per: 1m}}", "at least 1"),
        ("RateLimit", "{limit: {tokens: 1.5, per: 1m}}", "a whole number"),
        ("RateLimit", "{limit: {tokens: '5', per: 1m}}", "a whole number"),
        ("RateLimit", "{limit: {tokens: true, per: 1m}}", "a whole number"),
        ("RateLimit", "{limit: {tokens: 5, per: 60}}", "1h30m"),
        ("RateLimit", "{limit: {tokens: 5, per: 1 m}}", "1h30m"),
        ("RateLimit", "{limit: {tokens: 5, per: 500ms}}", "between 1s and 31d"),
        ("RateLimit", "{limit: {tokens: 5, per: 32d}}", "between 1s and 31d"),
        ("RateLimit", "{limit: {tokens: 5, per: 1m}, key: identity.team}", "a list"),
        ("Defaults", "{maxBodyBytes: 0}", "at least 1"),
        ("Defaults", "{audit: always}", "required or best_effort"),
        ("Defaults", "{responseHeaders: yes}", "must be true or false"),
        ("ApiKey", "{sha256: sk-verysecret}", "never the key itself"),
        ("ApiKey", f"{{sha256: {KEY}, expires: tomorrow}}", "RFC 3339"),
        ("ApiKey", f'{{sha256: {KEY}, expires: "2027-01-01T00:00:00"}}', "offset"),
        ("ApiKey", "{sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}", "nothing"),
        ("Identity", "{sources: [{}]}", "exactly one of apiKey, jwt, mtls, headers"),
        ("Identity", "{sources: [{apiKey: {header: X-Key}}]}", "lower case"),
        ("Identity", "{sources: [{apiKey: {header: a, query: b}}]}", "not both"),
        ("Identity", "{sources: [{apiKey: {scheme: Bearer}}]}", "scheme goes with header"),
        ("Identity", "{sources: [{headers: {user: x-user}}]}", "'trustedFrom' is missing"),
        ("Identity", "{sources: [{headers: {user: x-user, trustedFrom: {}}}]}", "must not choose who it is"),
        (
            "Identity",
            "{sources: [{headers: {user: x-user, trustedFrom: {addresses: [10.0.0.1/8]}}}]}",
            "CIDR",
        ),
        ("Identity", "{sources: [{ldap: {}}]}", "the fields are apiKey, jwt, mtls, headers"),
        ("Identity", "{sources: [{apiKey: {}, jwt: {}}]}", "exactly one of apiKey, jwt, mtls, headers"),
        ("Identity", "{sources: [{jwt: {issuers: []}}]}", "at least 1 entry"),
        ("Identity", "{sources: [{jwt: {claims: {team: ''}}}]}", "must not be empty"),
        ("Identity", "{sources: [{jwt: {claims: {tean: t}}}]}", "the fields are id, user, team, org, groups"),
        ("Identity", "{sources: [{jwt: {header: Authorization}}]}", "lower case"),
        ("Identity", "{sources: [{mtls: {}}]}", "'principals' is missing"),
        ("Identity", "{sources: [{mtls: {principals: []}}]}", "at least 1 entry"),
        ("Identity", "{sources: [{mtls: {principals: [{principal: '*'}]}}]}", "one whole segment"),
        ("Identity", "{sources: [{mtls: {principals: [{principal: ''}]}}]}", "one whole segment"),
        ("Identity", "{sources: [{mtls: {principals: [{principal: 7}]}}]}", "one whole segment"),
        ("Identity", "{sources: [{mtls: {principals: [{principal: spiffe://x/a*}]}}]}", "one whole segment"),
        (
            "Identity",
            "{sources: [{mtls: {principals: [{principal: spiffe://x/a}, {principal: spiffe://x/a}]}}]}",
            "there twice",
        ),
    ],
)
def test_a_wrong_field_is_told_with_what_would_be_accepted(
    problems: Problems, kind: str, spec: str, words: str
) -> None:
    found = problems(a=written(kind, "a", spec))

    assert any(words in p.message for p in found if p.file == "a.yaml"), found
    assert all(p.line >= 5 for p in found if p.file == "a.yaml" and "one too many" not in p.message)
    assert "verysecret" not in str(found)


def test_a_fault_in_an_expression_is_told_where_it_stands(problems: Problems) -> None:
    (fault, pattern) = problems(
        a=written(
            "AccessRule",
            "a",
            """
            effect: allow
            match: |
              identity.team == "a" &&
                request.modell == "b"
            """,
        ),
        b=written("AccessRule", "b", """{effect: deny, match: 'request.model.matches("(")'}"""),
    )

    assert (fault.file, fault.line, fault.column) == ("a.yaml", 9, 14)
    assert "request_bytes" not in fault.message
    assert "body_bytes" in fault.message
    assert (pattern.file, pattern.line, pattern.column) == ("b.yaml", 6, 48)


def test_an_unknown_kind_is_told_with_the_kinds(problems: Problems) -> None:
    (found,) = problems(a=written("Quota", "a", "x: 1"))

    assert found.message == f"there is no such kind; the kinds are {', '.join(sorted(KINDS))}"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("AccessRule", "a", "effect: allow"), ("AccessRule", "a", "effect: deny"), "is there twice"),
        (("Identity", "a", "sources: []"), ("Identity", "b", "sources: []"), "one too many"),
        (("ApiKey", "a", f"sha256: {KEY}"), ("ApiKey", "b", f"sha256: {KEY}"), "same sha256"),
        (("AccessRule", "a", "effect: deny"), ("AccessRule", "b", "effect: deny"), "can never matter"),
    ],
)
def test_what_is_there_twice_is_told_with_where_it_was_first(
    problems: Problems, first: tuple[str, str, str], second: tuple[str, str, str], words: str
) -> None:
    found = problems(a=written(*first), b=written(*second))

    assert [p.file for p in found] == ["b.yaml"]
    assert words in found[0].message
    assert f"{first[0]}/{first[1]} (a.yaml:2)" in found[0].message


def test_a_second_defaults_is_one_too_many(problems: Problems) -> None:
    assert any("one too many" in p.message for p in problems(a=DEFAULTS.replace("main", "other")))


def test_a_document_that_is_no_mapping_is_told(problems: Problems) -> None:
    (found,) = problems(a="- 1\n")

    assert "mapping with apiVersion" in found.message


def test_a_difference_names_the_objects(load: Load) -> None:
    old = load(("AccessRule", "a", "effect: allow"), ("AccessRule", "b", "effect: deny"))
    new = load(("AccessRule", "b", "{effect: deny, mode: shadow}"), ("AccessRule", "c", "{effect: allow}"))

    change = diff(old, new)

    assert change.added == (PolicyRef("AccessRule", "c"),)
    assert change.removed == (PolicyRef("AccessRule", "a"),)
    assert change.changed == (PolicyRef("AccessRule", "b"),)
    assert str(change) == "added AccessRule/c; removed AccessRule/a; changed AccessRule/b"
    assert str(diff(old, old)) == "no object"


def test_a_limit_whose_counters_have_other_names_starts_anew(load: Load) -> None:
    cap = "{{key: [identity.team], limit: {{{unit}: {amount}}}, {window}}}"
    plain = cap.format(unit="tokens", amount=5, window="period: month")
    old = load(("UsageCap", "a", plain))

    def restarted(spec: str) -> tuple[PolicyRef, ...]:
        return diff(old, load(("UsageCap", "a", spec))).restarted

    assert restarted(cap.format(unit="tokens", amount=9, window="period: month, warnAt: [0.5]")) == ()
    for edited in (
        cap.format(unit="requests", amount=5, window="period: month"),
        cap.format(unit="tokens", amount=5, window="period: day"),
        cap.format(unit="tokens", amount=5, window="period: month, timezone: Asia/Tokyo"),
        cap.format(unit="tokens", amount=5, window="rolling: 30d"),
        plain.replace("identity.team", "identity.user"),
    ):
        assert restarted(edited) == (PolicyRef("UsageCap", "a"),)
    assert str(diff(old, load(("UsageCap", "a", edited)))) == (
        "changed UsageCap/a; counters start anew UsageCap/a"
    )


def test_a_moved_or_commented_object_has_not_changed(load: Load) -> None:
    old = load(("AccessRule", "a", "effect: allow"), ("AccessRule", "b", "effect: deny"))
    new = load(("AccessRule", "b", "effect: deny  # because"), ("AccessRule", "a", "effect: allow"))

    assert diff(old, new) == Difference()


def test_the_description_is_json_and_holds_no_digest(load: Load) -> None:
    described = policyset.describe(
        load(("ApiKey", "a", f"sha256: {KEY}"), ("AccessRule", "r", "effect: deny"))
    )

    assert KEY not in json.dumps(described)
    assert [(item["kind"], item["name"], item["mode"], item["file"]) for item in described] == [
        ("AccessRule", "r", "enforce", "all.yaml"),
        ("ApiKey", "a", "enforce", "all.yaml"),
        ("Defaults", "main", "enforce", "all.yaml"),
    ]


def test_what_is_left_out_is_safe(load: Load) -> None:
    policies = load(
        ("AccessRule", "a", "effect: allow"), ("RateLimit", "l", "limit: {requests: 5, per: 1h30m}")
    )
    limit = policies.limits[0].spec
    assert isinstance(limit, RateLimit)

    assert (policies.defaults.access, policies.defaults.unclassified) == ("deny", "deny")
    assert (limit.mode, limit.on_error, limit.key, limit.match.text) == (Mode.ENFORCE, "allow", (), "true")
    assert (limit.limit.per, limit.limit.size) == (5_400_000_000, 5)
    assert policies.early_rules.items[0].spec.on_error == "deny"


@pytest.mark.parametrize(
    ("kind", "spec", "needs_counts"),
    [
        ("RateLimit", "limit: {tokens: 10, per: 60s}", True),
        ("RateLimit", "limit: {inputTokens: 10, per: 60s}", True),
        ("RateLimit", "limit: {tokens: 10, per: 60s}\nmode: shadow", True),
        ("RateLimit", "limit: {tokens: 10, per: 60s}\nmode: disabled", False),
        ("RateLimit", "limit: {outputTokens: 10, per: 60s}", False),
        ("RateLimit", "limit: {requests: 10, per: 60s}", False),
        ("RateLimit", "limit: {costUsd: 10, per: 60s}", True),
        ("UsageCap", "limit: {costUsd: 10}\nperiod: day", True),
        ("UsageCap", "limit: {requests: 10}\nperiod: day", False),
        ("ConcurrencyLimit", "max: 3", False),
        ("RateLimit", "limit: {requests: 10, per: 60s}\nmatch: tokens.input > 5", True),
        ("RateLimit", "limit: {requests: 10, per: 60s}\nkey: ['string(tokens.input)']", True),
        ("AccessRule", "effect: deny\nmatch: tokens.input > 100000", True),
        ("AccessRule", "effect: deny\nmatch: tokens.exact", True),
        ("AccessRule", "effect: deny\nmatch: tokens.input_upper_bound > 100000", False),
        ("AccessRule", "effect: deny\nmatch: tokens.max_output > 1000", False),
        ("AccessRule", "effect: deny\nmatch: request.model == 'gpt-4'", False),
    ],
)
def test_tokens_are_counted_where_somebody_asks_for_them(
    load: Load, kind: str, spec: str, *, needs_counts: bool
) -> None:
    assert load((kind, "one", spec)).needs_token_counts is needs_counts
