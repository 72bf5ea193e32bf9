"""Tests of policies are read strictly, and run by the session that serves."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from extproc.cli import app
from extproc.decision import PolicyRef
from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.rehearsal import cases, trial
from extproc.rehearsal.stage import Instruments
from extproc.rehearsal.trial import Trial

NOW_NS = 1_790_000_000 * 10**9
# sha256 of sk-test
POLICIES = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: allow}
---
apiVersion: ai-policy/v1
kind: Identity
metadata: {name: callers}
spec: {sources: [{apiKey: {header: x-gateway-key}}], anonymous: allow}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {name: ada}
spec: {sha256: f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0, user: ada, team: demo}
---
apiVersion: ai-policy/v1
kind: ApiKey
metadata: {name: old}
spec:
  sha256: aaabf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0
  expires: "2020-01-01T00:00:00Z"
---
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: no-gpt-5}
spec: {effect: deny, match: request.model == "gpt-5", message: Ask first.}
---
apiVersion: ai-policy/v1
kind: UsageCap
metadata: {name: team-day}
spec:
  {key: [identity.team], limit: {tokens: 1000}, period: day, warnAt: [0.5], match: request.model != "free"}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: dollars}
spec: {key: [identity.user], limit: {costUsd: 2, per: 1h}, mode: shadow}
---
apiVersion: ai-policy/v1
kind: RateLimit
metadata: {name: unused}
spec: {limit: {requests: 1, per: 1s}, mode: disabled}
"""
CHAT = (
    "{path: /v1/chat/completions, "
    "body: {model: gpt-4o-mini, max_tokens: 90, messages: [{role: user, content: hi}]}}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "all.yaml").write_text(POLICIES)
    (tmp_path / "tests").mkdir()
    return tmp_path


def one(folder: Path, test: str) -> Trial:
    """What the only test comes to."""
    (folder / "tests" / "one.yaml").write_text(test)
    (case,) = cases.read(folder, policyset.load(folder), NOW_NS)
    return asyncio.run(trial.run(case, Instruments()))


def problems(folder: Path, test: str) -> list[str]:
    (folder / "tests" / "one.yaml").write_text(test)
    with pytest.raises(PolicyFolderInvalid) as invalid:
        cases.read(folder, policyset.load(folder), NOW_NS)
    return [str(problem) for problem in invalid.value.problems]


def test_what_is_expected_and_comes_is_no_mismatch(folder: Path) -> None:
    tried = one(
        folder,
        """
- name: gpt-5
  request: {path: /v1/chat/completions, body: {model: gpt-5, messages: []}}
  expect:
    {effect: deny, enforcedEffect: deny, by: AccessRule/no-gpt-5, reason: access_denied, status: 403,
     message: Ask first, wouldDeny: [], warnings: []}
""",
    )

    assert tried.mismatches == ()


def test_a_mismatch_says_what_came_in_the_words_of_the_file(folder: Path) -> None:
    tried = one(
        folder,
        f"""
- name: wrong in every way
  given: {{identity: {{team: demo}}, used: {{UsageCap/team-day: {{tokens: 850}}}}}}
  request: {CHAT}
  expect: {{effect: deny, by: UsageCap/team-day, status: 429, maxOutputTokens: 10, warnings: []}}
""",
    )

    assert [str(mismatch) for mismatch in tried.mismatches] == [
        "effect: expected deny, got allow",
        "by: expected UsageCap/team-day, got Defaults/main",
        "status: expected 429, got none",
        "maxOutputTokens: expected 10, got 90",
        f"warnings: expected [], got [{tried.decision.warnings[0]}]",
    ]


def test_an_effect_in_shadow_says_that_it_was_not_enforced(folder: Path) -> None:
    tried = one(
        folder,
        f"""
- name: shadow
  given: {{identity: {{user: ada, team: demo}}, used: {{RateLimit/dollars: {{costUsd: 2}}}}}}
  request: {CHAT}
  expect: {{effect: allow}}
""",
    )

    # Without prices, nobody knows what it costs.
    assert [mismatch.field for mismatch in tried.mismatches] == ["given.used.RateLimit/dollars"]


def test_what_is_used_is_counted_before_the_request(folder: Path) -> None:
    tried = one(
        folder,
        f"""
- name: full
  given:
    identity: {{team: demo}}
    used: {{UsageCap/team-day: {{tokens: 1200}}}}
    now: "2026-11-20T23:59:00Z"
  request: {CHAT}
  expect: {{effect: deny, by: UsageCap/team-day, reason: cap_reached, status: 429, retryAfterMs: 60000}}
""",
    )

    assert tried.mismatches == ()
    (outcome,) = [each for each in tried.decision.outcomes if each.charge.policy.name == "team-day"]
    assert outcome.used == 1200


def test_what_is_used_of_a_limit_that_does_not_concern_the_request_is_a_mismatch(folder: Path) -> None:
    tried = one(
        folder,
        """
- name: another model
  given: {identity: {team: demo}, used: {UsageCap/team-day: {tokens: 1}}}
  request: {path: /v1/chat/completions, body: {model: free, messages: []}}
  expect: {effect: allow}
""",
    )

    assert [mismatch.field for mismatch in tried.mismatches] == ["given.used.UsageCap/team-day"]


def test_what_is_used_does_not_matter_where_an_earlier_stage_denies(folder: Path) -> None:
    tried = one(
        folder,
        """
- name: denied before any limit
  given: {identity: {team: demo}, used: {UsageCap/team-day: {tokens: 1}}}
  request: {path: /v1/chat/completions, body: {model: gpt-5, messages: []}}
  expect: {by: AccessRule/no-gpt-5}
""",
    )

    assert tried.is_ok


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("{key: ada}", "{effect: allow}"),
        ("{key: old}", "{reason: credential_expired, by: Identity/callers}"),
        ("{}", "{effect: allow}"),
    ],
)
def test_a_key_is_recognised_by_the_folder_itself(folder: Path, given: str, expect: str) -> None:
    tried = one(folder, f"- {{name: keys, given: {given}, request: {CHAT}, expect: {expect}}}")

    assert tried.mismatches == ()
    assert tried.decision.identity.key == ("ada" if "ada" in given else "")


def test_a_real_key_in_the_headers_counts_too(folder: Path) -> None:
    request = CHAT.replace("{path:", "{headers: {x-gateway-key: sk-test}, path:", 1)

    tried = one(folder, f"- {{name: header, request: {request}, expect: {{effect: allow}}}}")

    assert tried.decision.identity.user == "ada"


def test_everything_wrong_is_said_at_once_and_where_it_is(folder: Path) -> None:
    found = problems(
        folder,
        """
- name: one
  given: {identity: {taem: demo}, used: {UsageCap/team-day: {tokens: 1}}}
  request: {path: /v1/models}
  expect: {effect: maybe}
- name: two
  given:
    key: nobody
    used:
      UsageCap/team-day: {costUsd: 1}
      UsageCap/other: {tokens: 1}
      RateLimit/unused: {requests: 1}
  request: {path: /v1/models}
  expect: {by: AccessRule/other, wouldDeny: [RateLimit/dollars, RateLimit/none]}
- name: three
  given: {now: tomorrow}
  request: {path: v1}
  expect: {}
- name: four
  request: {path: /}
  expect: {status: 403}
- name: four
  request: {path: /}
  expect: {status: 403}
""",
    )

    assert [problem.split(": ", 1)[0] for problem in found] == [
        "tests/one.yaml:3:22",
        "tests/one.yaml:5:20",
        "tests/one.yaml:8:10",
        "tests/one.yaml:10:7",
        "tests/one.yaml:11:7",
        "tests/one.yaml:12:7",
        "tests/one.yaml:14:16",
        "tests/one.yaml:14:65",
        "tests/one.yaml:16:16",
        "tests/one.yaml:17:19",
        "tests/one.yaml:18:11",
        "tests/one.yaml:22:1",
    ]
    assert "did you mean `team`?" in found[0]
    assert "UsageCap/team-day counts tokens" in found[3]


@pytest.mark.parametrize(
    ("now", "is_one"),
    [
        ("0001-01-01T00:00:00Z", False),
        ("1970-01-01T00:00:00Z", True),
        ("9998-12-31T23:59:59Z", True),
        ("9999-12-31T23:59:59Z", False),
    ],
)
def test_a_test_takes_place_where_a_calendar_has_time(folder: Path, *, now: str, is_one: bool) -> None:
    test = f"- {{name: then, given: {{now: '{now}'}}, request: {CHAT}, expect: {{effect: allow}}}}"

    if is_one:
        assert one(folder, test).is_ok
    else:
        assert "between the years" in problems(folder, test)[0]


def test_a_file_that_is_no_list_is_a_problem(folder: Path) -> None:
    (problem,) = problems(folder, "name: one\n")

    assert "a list" in problem


# --- the command


def test_the_command_prints_every_test_and_why_one_failed(folder: Path) -> None:
    (folder / "tests" / "one.yaml").write_text(
        f"""
- {{name: right, request: {CHAT}, expect: {{effect: allow}}}}
- name: wrong
  request: {{path: /v1/chat/completions, body: {{model: gpt-5, messages: []}}}}
  expect: {{effect: allow}}
"""
    )

    result = CliRunner().invoke(app, ["test", str(folder)])

    assert result.exit_code == 1
    assert "ok      right" in result.stdout
    assert "FAILED  wrong" in result.stdout
    assert "tests/one.yaml:3" in result.stdout
    assert "effect: expected allow, got deny" in result.stdout
    assert "AccessRule/no-gpt-5: " in result.stdout
    assert "2 tests, 1 failed" in result.stdout
    assert "said nothing in any test: " not in result.stdout


@pytest.mark.parametrize(
    "expect", ["{effect: allow}", "{effect: deny}", '{message: "\\e[32m"}', '{by: "RateLimit/\\e[32m"}']
)
def test_what_a_file_says_is_printed_and_does_nothing_to_a_terminal(folder: Path, expect: str) -> None:
    (folder / "tests" / "\x1b[31m.yaml").write_text(
        f'- {{name: "\\e]0;x\\a\\nok\\u202e", request: {CHAT}, expect: {expect}}}'
    )

    result = CliRunner().invoke(app, ["test", str(folder)], color=True)

    lines = result.output.splitlines()
    assert all(line.isprintable() for line in lines), result.output
    assert not any(line.startswith("ok\\") for line in lines)


def test_the_command_names_policies_that_no_test_made_speak(folder: Path) -> None:
    (folder / "tests" / "one.yaml").write_text(
        f"- {{name: right, request: {CHAT}, expect: {{effect: allow}}}}"
    )

    result = CliRunner().invoke(app, ["test", str(folder), "--json"])

    assert result.exit_code == 0
    assert json.loads(result.stdout)["unheard"] == ["AccessRule/no-gpt-5"]


def test_the_command_runs_only_what_is_named(folder: Path) -> None:
    (folder / "tests" / "one.yaml").write_text(
        f"- {{name: right, request: {CHAT}, expect: {{effect: allow}}}}\n"
        f"- {{name: wrong, request: {CHAT}, expect: {{effect: deny}}}}"
    )

    result = CliRunner().invoke(app, ["test", str(folder), "--only", "rig", "--json"])

    assert result.exit_code == 0
    assert [test["name"] for test in json.loads(result.stdout)["tests"]] == ["right"]


def test_no_test_at_all_is_not_right(folder: Path) -> None:
    result = CliRunner().invoke(app, ["test", str(folder)])

    assert result.exit_code == 1
    assert "no test was found" in result.stdout


def test_a_test_that_cannot_be_read_is_unusable(folder: Path) -> None:
    (folder / "tests" / "one.yaml").write_text("- {name: one}")

    result = CliRunner().invoke(app, ["test", str(folder)])

    assert result.exit_code == 2
    assert "tests/one.yaml:1:3" in result.stderr


def test_policies_of_a_test_folder_are_none_of_the_folder(folder: Path) -> None:
    revision = policyset.load(folder).revision

    (folder / "tests" / "one.yaml").write_text("- {name: one}")

    assert policyset.load(folder).revision == revision
    assert PolicyRef("Defaults", "main") in {item.ref for item in policyset.load(folder).objects}
