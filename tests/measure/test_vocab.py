import hashlib
import os
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiktoken_ext.openai_public  # type: ignore[import-untyped]  # ships no types

from extproc.errors import VocabularyMissing
from extproc.measure import vocab
from extproc.measure.vocab import VOCABULARIES, Source, Vocabulary, Wanted, default_directory, fetch, load


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The real files; what is tested here is how they travel, not where they come from."""
    directory = default_directory(os.environ)
    paths = {vocabulary.name: directory / vocabulary.file_name for vocabulary in VOCABULARIES}
    if not all(path.is_file() for path in paths.values()):
        pytest.skip("the vocabularies are not on this machine; run `extproc vocab`")
    return {name: path.read_bytes() for name, path in paths.items()}


class Said(list[str]):
    """What `fetch` reported."""

    def mentions(self, words: str) -> bool:
        return any(words in line for line in self)


def giving(files: Mapping[str, bytes]) -> Source:
    return Source(
        name="a source", read=lambda wanted: {v.name: files[v.name] for v in wanted if v.name in files}
    )


def failing(failure: Exception) -> Source:
    def read(_wanted: Wanted) -> Mapping[str, bytes]:
        raise failure

    return Source(name="a dead source", read=read)


def unreachable(_wanted: Wanted) -> Mapping[str, bytes]:
    raise AssertionError("no source may be asked")


def test_the_first_source_that_answers_is_enough(tmp_path: Path, files: dict[str, bytes]) -> None:
    said = Said()

    fetch(tmp_path, report=said.append, sources=(giving(files), Source(name="next", read=unreachable)))

    assert {path.name for path in tmp_path.iterdir()} == {"o200k_base.tiktoken", "cl100k_base.tiktoken"}
    assert said.mentions("checksum verified")


def test_a_second_run_asks_no_source(tmp_path: Path, files: dict[str, bytes]) -> None:
    fetch(tmp_path, report=Said().append, sources=(giving(files),))
    said = Said()

    fetch(tmp_path, report=said.append, sources=(Source(name="network", read=unreachable),))

    assert said == ["o200k_base: already here", "cl100k_base: already here"]


def test_a_dead_source_hands_over_to_the_next(tmp_path: Path, files: dict[str, bytes]) -> None:
    said = Said()

    dead = failing(urllib.error.URLError("no route"))
    fetch(tmp_path, report=said.append, sources=(dead, giving(files)))

    assert said[0] == "a dead source: URLError"
    assert load(tmp_path).keys() == {"o200k_base", "cl100k_base"}


def test_each_vocabulary_may_come_from_another_source(tmp_path: Path, files: dict[str, bytes]) -> None:
    halves = tuple(giving({name: data}) for name, data in files.items())

    fetch(tmp_path, report=Said().append, sources=halves)

    assert load(tmp_path).keys() == files.keys()


def test_a_file_with_the_wrong_checksum_is_never_kept(tmp_path: Path) -> None:
    said = Said()
    forged = {vocabulary.name: b"aGVsbG8= 0\n" for vocabulary in VOCABULARIES}

    with pytest.raises(VocabularyMissing, match="o200k_base, cl100k_base"):
        fetch(tmp_path, report=said.append, sources=(giving(forged),))

    assert list(tmp_path.iterdir()) == []
    assert said.mentions("wrong checksum")


def test_a_corrupt_file_is_replaced(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "o200k_base.tiktoken").write_bytes(files["o200k_base"][:-1])

    fetch(tmp_path, report=Said().append, sources=(giving(files),))

    assert (tmp_path / "o200k_base.tiktoken").read_bytes() == files["o200k_base"]


def test_an_existing_tiktoken_cache_is_used(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for vocabulary in VOCABULARIES:
        (cache / vocabulary.cache_name).write_bytes(files[vocabulary.name])
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))

    fetch(tmp_path / "vocab", report=Said().append, sources=vocab.SOURCES[:1])

    assert load(tmp_path / "vocab").keys() == files.keys()


def test_cache_names_are_those_tiktoken_gives_its_files() -> None:
    assert [vocabulary.cache_name for vocabulary in VOCABULARIES] == [
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    ]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda _data: b"", lambda data: data + b"\n"])
def test_a_damaged_file_does_not_load(
    tmp_path: Path, files: dict[str, bytes], damage: Callable[[bytes], bytes]
) -> None:
    fetch(tmp_path, report=Said().append, sources=(giving(files),))
    (tmp_path / "cl100k_base.tiktoken").write_bytes(damage(files["cl100k_base"]))

    with pytest.raises(VocabularyMissing, match=r"cl100k_base.*extproc vocab"):
        load(tmp_path)


def test_a_missing_folder_does_not_load_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VocabularyMissing, match="extproc vocab"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.name)
def test_what_we_pin_is_what_tiktoken_pins(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: dict[str, str] = {}

    def note(url: str, expected_hash: str) -> dict[bytes, int]:
        pinned.update(url=url, sha256=expected_hash)
        return {}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", note)

    theirs: dict[str, Any] = getattr(tiktoken_ext.openai_public, vocabulary.name)()

    assert pinned == {"url": vocabulary.url, "sha256": vocabulary.sha256}
    assert theirs["special_tokens"] == vocabulary.special_tokens
    assert theirs["pat_str"] == vocabulary.pattern


def test_loaded_encodings_give_known_tokens(tmp_path: Path, files: dict[str, bytes]) -> None:
    fetch(tmp_path, report=Said().append, sources=(giving(files),))

    encodings = load(tmp_path)

    assert encodings["o200k_base"].encode_ordinary("hello world") == [24912, 2375]
    assert encodings["cl100k_base"].encode_ordinary("hello world") == [15339, 1917]


def test_the_folder_is_the_named_one_else_the_users_cache() -> None:
    assert default_directory({"EXTPROC_VOCAB": "/v", "XDG_CACHE_HOME": "/c"}) == Path("/v")
    assert default_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/extproc/vocab")
    assert default_directory({}) == Path.home() / ".cache/extproc/vocab"


def test_checksums_are_of_the_whole_file(files: dict[str, bytes]) -> None:
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
        vocabulary.name: vocabulary.sha256 for vocabulary in VOCABULARIES
    }
