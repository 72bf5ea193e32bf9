"""The policy folder under edits: good ones, broken ones, half-written ones, and Kubernetes' own way."""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from extproc import reload
from extproc.errors import PolicyFolderInvalid
from extproc.policy import policyset
from extproc.policy.policyset import PolicySet
from extproc.reload import PolicyFolder

DEFAULTS = """
apiVersion: ai-policy/v1
kind: Defaults
metadata: {name: main}
spec: {access: deny}
"""
RULE = """
apiVersion: ai-policy/v1
kind: AccessRule
metadata: {name: NAME}
spec: {effect: allow, match: request.model == "NAME"}
"""


def rule(name: str) -> str:
    return RULE.replace("NAME", name)


def names(folder: PolicyFolder) -> list[str]:
    return [str(item.ref) for item in folder.current.objects if item.ref.kind == "AccessRule"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "defaults.yaml").write_text(DEFAULTS)
    (folder / "rules.yaml").write_text(rule("first"))
    return folder


@pytest.fixture
def failures() -> list[int]:
    return []


@pytest.fixture
def folder(path: Path, failures: list[int]) -> PolicyFolder:
    return PolicyFolder(path, on_failure=lambda: failures.append(1))


async def test_a_new_revision_is_told_with_what_it_changed(path: Path) -> None:
    told: list[str] = []
    folder = PolicyFolder(path, on_change=lambda loaded, change: told.append(f"{loaded.revision} {change}"))
    await folder.look()
    assert told == []

    (path / "rules.yaml").write_text(rule("second"))
    await folder.look()

    assert told == [f"{folder.current.revision} added AccessRule/second; removed AccessRule/first"]


# --- look


def test_a_folder_that_does_not_load_at_first_is_an_error_with_every_problem(path: Path) -> None:
    (path / "rules.yaml").write_text(rule("a").replace("request.model", "request.modle"))
    (path / "more.yaml").write_text("kind: Nothing\n")

    with pytest.raises(PolicyFolderInvalid) as invalid:
        PolicyFolder(path)

    assert {problem.file for problem in invalid.value.problems} == {"rules.yaml", "more.yaml"}


async def test_a_good_edit_is_in_force_and_says_what_changed(
    folder: PolicyFolder, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = folder.current
    (path / "rules.yaml").write_text(rule("second"))

    with caplog.at_level(logging.INFO, logger=reload.__name__):
        await folder.look()

    assert names(folder) == ["AccessRule/second"]
    assert folder.current.revision != before.revision
    assert folder.status.ok
    (record,) = caplog.records
    assert vars(record)["revision"] == folder.current.revision
    assert str(vars(record)["change"]) == "added AccessRule/second; removed AccessRule/first"


async def test_a_folder_that_nobody_touched_is_not_loaded_again(
    folder: PolicyFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Path) -> PolicySet:
        raise AssertionError("loaded for nothing")

    monkeypatch.setattr(policyset, "load", never)
    (path / "rules.yaml").touch()
    before = folder.status

    await folder.look()

    assert folder.status is before


async def test_a_broken_edit_keeps_the_last_good_revision_and_is_loud(
    folder: PolicyFolder, path: Path, failures: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    good = folder.current
    (path / "rules.yaml").write_text(rule("second").replace("spec:", "spek:"))

    await folder.look()
    await folder.look()

    assert folder.current is good
    assert not folder.status.ok
    assert any(problem.startswith("rules.yaml:") for problem in folder.status.problems)
    assert failures == [1]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["problems"] for record in errors] == [list(folder.status.problems)]


async def test_a_half_written_file_waits_for_its_other_half(
    folder: PolicyFolder, path: Path, failures: list[int]
) -> None:
    whole = rule("second")
    seen: list[tuple[list[str], bool]] = []
    for end in range(0, len(whole) + 1, 3):
        (path / "rules.yaml").write_text(whole[:end])
        await folder.look()
        seen.append((names(folder), folder.status.ok))
    (path / "rules.yaml").write_text(whole)
    await folder.look()

    assert names(folder) == ["AccessRule/second"]
    assert folder.status.ok
    # No prefix in between was mistaken for a rule of its own.
    assert {tuple(found) for found, _ in seen} <= {("AccessRule/first",), (), ("AccessRule/second",)}
    assert failures


async def test_going_back_to_what_was_in_force_ends_the_alarm(folder: PolicyFolder, path: Path) -> None:
    good = (path / "rules.yaml").read_text()
    revision = folder.current.revision
    (path / "rules.yaml").write_text("{")
    await folder.look()
    (path / "rules.yaml").write_text(good)

    await folder.look()

    assert folder.status.ok
    assert folder.status.problems == ()
    assert folder.current.revision == revision


async def test_a_folder_that_vanishes_keeps_its_policies_until_it_is_back(
    folder: PolicyFolder, path: Path, failures: list[int]
) -> None:
    good = folder.current
    aside = path.with_name("aside")
    shutil.move(path, aside)
    await folder.look()
    missing = folder.status
    await folder.look()
    kept = folder.current
    aside.rename(path)
    (path / "rules.yaml").write_text(rule("second"))

    await folder.look()

    assert kept is good
    assert not missing.ok
    assert failures == [1]
    assert names(folder) == ["AccessRule/second"]
    assert folder.status.ok


async def test_an_emptied_folder_is_an_error_and_no_open_door(folder: PolicyFolder, path: Path) -> None:
    for name in ("defaults.yaml", "rules.yaml"):
        (path / name).unlink()

    await folder.look()

    assert names(folder) == ["AccessRule/first"]
    assert not folder.status.ok


async def test_a_loader_that_crashes_keeps_the_revision_and_tells_no_content(
    folder: PolicyFolder, path: Path, failures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Path) -> PolicySet:
        raise RecursionError("canary-of-the-file")

    good = folder.current
    with monkeypatch.context() as broken:
        broken.setattr(policyset, "load", crash)
        (path / "rules.yaml").write_text(rule("second"))
        await folder.look()
    crashed = folder.status
    (path / "rules.yaml").write_text(rule("third"))

    kept = folder.current
    await folder.look()

    assert kept is good
    assert not crashed.ok
    assert "RecursionError" in crashed.problems[0]
    assert "canary" not in str(crashed.problems)
    assert failures == [1]
    assert names(folder) == ["AccessRule/third"]


async def test_files_that_are_no_files_do_not_stop_a_reload(folder: PolicyFolder, path: Path) -> None:
    (path / "dangling.txt").symlink_to(path / "nowhere")
    (path / "loop.txt").symlink_to(path / "loop.txt")
    (path / "sub").mkdir()
    os.mkfifo(path / "pipe.txt")
    (path / "rules.yaml").write_text(rule("second"))

    await folder.look()

    assert names(folder) == ["AccessRule/second"]


# --- follow


@pytest.fixture
async def followed(folder: PolicyFolder) -> AsyncIterator[PolicyFolder]:
    following = asyncio.ensure_future(folder.follow())
    yield folder
    assert not following.done(), "it stopped following"
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def eventually(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_true():  # noqa: ASYNC110  what we wait for is a file's effect, and sends no event
            await asyncio.sleep(0.01)


async def test_following_picks_up_edits_and_their_repairs(followed: PolicyFolder, path: Path) -> None:
    (path / "rules.yaml").write_text(rule("second"))
    await eventually(lambda: names(followed) == ["AccessRule/second"])
    (path / "rules.yaml").write_text("kind: [")
    await eventually(lambda: not followed.status.ok)
    (path / "rules.yaml").write_text(rule("third"))
    await eventually(lambda: names(followed) == ["AccessRule/third"])

    assert followed.status.ok


async def test_many_quick_edits_end_in_the_last_one(followed: PolicyFolder, path: Path) -> None:
    for number in range(300):
        (path / "rules.yaml").write_text(rule(f"edit-{number}"))
        if number % 10 == 0:
            await asyncio.sleep(0.001)

    await eventually(lambda: names(followed) == ["AccessRule/edit-299"])


async def test_a_folder_removed_and_put_back_is_followed_again(followed: PolicyFolder, path: Path) -> None:
    saved = path.with_name("saved")
    shutil.copytree(path, saved)
    shutil.rmtree(path)
    await eventually(lambda: not followed.status.ok)
    saved.rename(path)
    await eventually(lambda: followed.status.ok)
    (path / "rules.yaml").write_text(rule("second"))

    await eventually(lambda: names(followed) == ["AccessRule/second"])


async def test_kubernetes_symlink_swap_is_picked_up_whole(tmp_path: Path) -> None:
    """A ConfigMap volume: files are links through `..data`, which is replaced in one step."""

    def version(name: str, *rules: str) -> Path:
        made = mounted / name
        made.mkdir()
        (made / "defaults.yaml").write_text(DEFAULTS)
        (made / "rules.yaml").write_text("---".join(map(rule, rules)))
        return made

    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(version("..2026_01", "first").name)
    for file in ("defaults.yaml", "rules.yaml"):
        (mounted / file).symlink_to(f"..data/{file}")
    folder = PolicyFolder(mounted)
    following = asyncio.ensure_future(folder.follow())
    await asyncio.sleep(0)

    new = version("..2026_02", "second", "third")
    (mounted / "..data_tmp").symlink_to(new.name)
    (mounted / "..data_tmp").rename(mounted / "..data")
    shutil.rmtree(mounted / "..2026_01")
    await eventually(lambda: names(folder) == ["AccessRule/second", "AccessRule/third"])

    assert folder.status.ok
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_a_folder_behind_a_link_that_is_moved_is_picked_up(tmp_path: Path, path: Path) -> None:
    """As git-sync does it: the folder given is a link, and the link is what changes."""
    link = tmp_path / "current"
    link.symlink_to(path)
    folder = PolicyFolder(link)
    following = asyncio.ensure_future(folder.follow())
    await asyncio.sleep(0)

    shutil.copytree(path, tmp_path / "next")
    (tmp_path / "next" / "rules.yaml").write_text(rule("second"))
    (tmp_path / "new-link").symlink_to(tmp_path / "next")
    (tmp_path / "new-link").rename(link)

    await eventually(lambda: names(folder) == ["AccessRule/second"])
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_a_system_without_a_watch_to_give_is_looked_at_now_and_then(
    folder: PolicyFolder, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where fs.inotify.max_user_instances is used up, watching is an OSError."""

    def no_watch(*_: object, **__: object) -> AsyncIterator[object]:
        raise OSError(24, "OS file watch limit reached.")

    monkeypatch.setattr(reload, "awatch", no_watch)
    monkeypatch.setattr(reload, "_LOOK_AGAIN_MS", 10)
    following = asyncio.ensure_future(folder.follow())
    await asyncio.sleep(0)
    (path / "rules.yaml").write_text(rule("second"))

    await eventually(lambda: names(folder) == ["AccessRule/second"] or following.done())
    (path / "rules.yaml").write_text(rule("third"))
    await eventually(lambda: names(folder) == ["AccessRule/third"] or following.done())

    assert names(folder) == ["AccessRule/third"]
    assert sum("cannot be watched" in record.getMessage() for record in caplog.records) == 1
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
