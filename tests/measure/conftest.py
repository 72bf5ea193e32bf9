"""The loaded vocabularies, once a run; without them these tests are skipped."""

import os

import pytest

from extproc.errors import VocabularyMissing
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    try:
        return Tokenizer(load(default_directory(os.environ)))
    except VocabularyMissing as missing:
        pytest.skip(str(missing))
