"""What was learned across restarts: whole files or none, and nothing that a file can break."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.bytes_per_token import AnswerForm, BytesPerToken
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LONGEST_NAME, LearnedOutputs, learned_reasoning
from extproc.model import AIRequest, TokenEstimate
from extproc.state import FILE_NAME, LearnedFile

REQUEST = AIRequest(
    api="openai_chat", provider="groq", operation="chat", model="gpt-oss-20b", modalities=("text",)
)
ESTIMATE = TokenEstimate(input=16, uncalibrated=16, input_upper_bound=60, estimator="tiktoken:o200k_base")


class Learned:
    """Every kind and their file."""

    def __init__(self, folder: Path) -> None:
        self.outputs, self.calibration = LearnedOutputs(), Calibration()
        self.reasoning = learned_reasoning()
        self.bytes_per_token = BytesPerToken()
        self.failures = 0
        self.file = LearnedFile(
            folder,
            self.outputs,
            self.reasoning,
            self.calibration,
            bytes_per_token=self.bytes_per_token,
            on_failure=self._failed,
        )

    def _failed(self) -> None:
        self.failures += 1

    def learn(self, *, answers: int = 25, model: str = "gpt-oss-20b") -> "Learned":
        for number in range(answers):
            self.outputs.observe("groq", model, 100 + number)
            self.reasoning.observe("groq", model, 10 + number)
            self.calibration.teach(ESTIMATE, REQUEST, 86)
            form = AnswerForm(api="openai_chat", provider="groq", model=model, is_stream=True)
            self.bytes_per_token.observe(form, 25_000 + number, 100)
        return self

    @property
    def content(self) -> tuple[Any, ...]:
        parts = (self.outputs, self.reasoning, self.calibration, self.bytes_per_token)
        return tuple(part.dump() for part in parts)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def loaded(folder: Path) -> Learned:
    learned = Learned(folder)
    learned.file.load()
    return learned


async def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    first = Learned(tmp_path / "deep" / "state").learn()
    await first.file.save()

    second = loaded(tmp_path / "deep" / "state")

    assert second.content == first.content
    assert second.outputs.percentile_95("groq", "gpt-oss-20b") == 123
    corrected = second.calibration.corrected(ESTIMATE, REQUEST)
    assert (corrected.input, corrected.estimator) == (86, "tiktoken:o200k_base+learned")
    assert names(tmp_path / "deep" / "state") == [FILE_NAME]


async def test_only_what_changed_is_written(tmp_path: Path) -> None:
    learned = Learned(tmp_path)
    await learned.file.save()
    assert names(tmp_path) == []

    learned.learn()
    await learned.file.save()
    written = (tmp_path / FILE_NAME).stat().st_ino
    await learned.file.save()
    assert (tmp_path / FILE_NAME).stat().st_ino == written

    again = loaded(tmp_path)
    await again.file.save()
    assert (tmp_path / FILE_NAME).stat().st_ino == written


async def test_it_is_saved_now_and_then(tmp_path: Path) -> None:
    learned = Learned(tmp_path).learn()

    keeping = asyncio.ensure_future(learned.file.keep(period_s=0.001))
    async with asyncio.timeout(30):
        while not (tmp_path / FILE_NAME).exists():  # noqa: ASYNC110  a folder sends no event
            await asyncio.sleep(0.001)
    keeping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await keeping


def test_a_missing_file_is_a_fresh_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="extproc.state"):
        learned = loaded(tmp_path)

    assert learned.content == ([], [], [], [])
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def test_a_file_of_a_version_that_learned_less_is_taken_over(tmp_path: Path) -> None:
    first = Learned(tmp_path).learn()
    await first.file.save()
    path = tmp_path / FILE_NAME
    content = json.loads(path.read_bytes())
    del content["bytes_per_token"]
    path.write_text(json.dumps(content))

    assert loaded(tmp_path).content == (*first.content[:3], [])


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def newer(data: bytes) -> bytes:
    return data.replace(b"/v1", b"/v2")


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        newer,
        lambda _: b"",
        lambda _: b"\xff\xfe\x00",
        lambda _: b"[" * 100_000,
        lambda _: b"null",
        lambda _: b'{"schema": "extproc/learned/v1"}',
        lambda _: b'{"schema": "extproc/learned/v1", "outputs": {}, "reasoning": 2, "estimates": 1}',
        lambda _: b'{"schema": "someone else", "outputs": [], "reasoning": [], "estimates": []}',
        lambda _: b'{"x": ' + b"9" * 5000 + b"}",
        lambda _: b" " * (16 * 1024 * 1024 + 1),
    ],
)
async def test_a_file_that_is_none_of_ours_is_said_once_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    await Learned(tmp_path).learn().file.save()
    path = tmp_path / FILE_NAME
    path.write_bytes(damage(path.read_bytes()))

    learned = loaded(tmp_path)

    assert learned.content == ([], [], [], [])
    assert [record.message for record in caplog.records] == ["learned file ignored"]

    await learned.learn().file.save()
    assert loaded(tmp_path).content == learned.content


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_no_rows_break_the_start(
    tmp_path_factory: pytest.TempPathFactory, outputs: list[Any], estimates: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    content = {
        "schema": "extproc/learned/v1",
        "outputs": outputs,
        "reasoning": outputs,
        "estimates": estimates,
        "bytes_per_token": estimates,
    }
    (folder / FILE_NAME).write_text(json.dumps(content))

    assert loaded(folder).content == ([], [], [], [])


def test_rows_are_believed_as_far_as_they_can_be_true(tmp_path: Path) -> None:
    outputs = [
        ["openai", "m", [1, -1, True, 2.5, "3", 10**9, 4]],
        ["openai", "m" * (LONGEST_NAME + 1), [1]],
        ["openai", 7, [1]],
        ["openai", "n", list(range(1000))],
    ]
    content = {"schema": "extproc/learned/v1", "outputs": outputs, "reasoning": [], "estimates": []}
    (tmp_path / FILE_NAME).write_text(json.dumps(content))

    learned = loaded(tmp_path)

    assert learned.outputs.dump() == [["openai", "m", [1, 4]], ["openai", "n", list(range(744, 1000))]]


async def test_names_that_clients_make_up_travel_as_plain_json(tmp_path: Path) -> None:
    learned = Learned(tmp_path).learn(model='\ud800"\n{}\x00é')

    await learned.file.save()

    assert (tmp_path / FILE_NAME).read_bytes().isascii()
    assert loaded(tmp_path).content == learned.content


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path

from extproc import state

state.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
state._replace(Path(sys.argv[1]), {"half": "a file"})
"""


def test_what_a_killed_process_left_unfinished_is_cleared_in_time(tmp_path: Path) -> None:
    first = Learned(tmp_path).learn()
    asyncio.run(first.file.save())
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / FILE_NAME)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.iterdir() if path.name != FILE_NAME]

    assert loaded(tmp_path).content == first.content
    assert left.exists(), "another process may be writing it just now"

    os.utime(left, (0, 0))
    assert loaded(tmp_path).content == first.content
    assert names(tmp_path) == [FILE_NAME]


async def test_two_that_share_a_folder_leave_one_whole_file(tmp_path: Path) -> None:
    both = [Learned(tmp_path).learn(model=model) for model in ("first", "second")]

    for _ in range(20):
        for learned in both:
            learned.learn(answers=1)
        await asyncio.gather(*(learned.file.save() for learned in both))

    assert loaded(tmp_path).content in [learned.content for learned in both]
    assert names(tmp_path) == [FILE_NAME]
    assert [learned.failures for learned in both] == [0, 0]


async def test_a_folder_that_cannot_be_written_is_counted_and_fatal_to_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    learned = Learned(tmp_path / "file" / "state").learn()

    await learned.file.save()
    await learned.file.save()

    assert learned.failures == 2
    assert {record.message for record in caplog.records} == {"what was learned is not saved"}


async def test_a_full_disk_leaves_the_last_good_file_and_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = Learned(tmp_path).learn()
    await learned.file.save()
    before = (tmp_path / FILE_NAME).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        await learned.learn(answers=1).file.save()

    assert learned.failures == 1
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert names(tmp_path) == [FILE_NAME]

    await learned.file.save()
    assert loaded(tmp_path).content == learned.content
