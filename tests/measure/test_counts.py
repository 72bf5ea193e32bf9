from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.counts import CACHED_CHARS, CountCache
from extproc.measure.tokens import Tokenizer
from extproc.model import Prompt, PromptMessage, TokenEstimate

LONG = "A conversation grows by what is new. " * 20
TOOL = '{"type":"function","function":{"name":"get_weather","description":"Get the weather."}}'


class Counted:
    """An encoding that notes what it was asked."""

    name = "o200k_base"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_ordinary(self, text: str) -> list[int]:
        self.asked.append(text)
        return [0] * (len(text) // 4 + 1)


def estimate(tokenizer: Tokenizer, *texts: str, tools: tuple[str, ...] = ()) -> TokenEstimate:
    messages = tuple(PromptMessage(role="user", text=text) for text in texts)
    return tokenizer.estimate(
        Prompt(messages=messages, tools=tools), provider="openai", model="gpt-4o", declared_max_output=0
    )


def with_cache(encoding: Any, **settings: int) -> Tokenizer:
    return Tokenizer({"o200k_base": encoding}, CountCache(b"key", **settings))


def test_a_growing_conversation_counts_only_what_is_new() -> None:
    encoding = Counted()
    tokenizer = with_cache(encoding)
    turns = [f"{number}: {LONG}" for number in range(10)]

    for end in range(1, 11):
        estimate(tokenizer, *turns[:end], tools=(TOOL,))

    assert len(encoding.asked) == 10 + 1
    assert encoding.asked.count(turns[0]) == 1


def test_a_short_text_is_counted_each_time() -> None:
    encoding = Counted()
    tokenizer = with_cache(encoding)

    estimate(tokenizer, "x" * (CACHED_CHARS - 1))
    estimate(tokenizer, "x" * (CACHED_CHARS - 1))

    assert len(encoding.asked) == 2


def test_the_text_used_least_recently_is_forgotten() -> None:
    encoding = Counted()
    tokenizer = with_cache(encoding, entries=2)
    first, second, third = (f"{number}{LONG}" for number in range(3))

    for text in (first, second, first, third, first, second):
        estimate(tokenizer, text)

    assert encoding.asked == [first, second, third, second]


def test_nothing_of_a_text_is_kept() -> None:
    cache = CountCache(b"key")
    Tokenizer({"o200k_base": Counted()}, cache).count(LONG, provider="openai", model="gpt-4o")  # type: ignore[dict-item]  # only encodes

    assert len(cache) == 1
    assert all(len(digest) == 16 for digest in cache._counts)


def test_a_digest_depends_on_the_process_the_purpose_and_where_texts_end() -> None:
    cache = CountCache(b"key")

    digests = {
        cache.digest("a", ("bc",)),
        cache.digest("ab", ("c",)),
        cache.digest("a", ("b", "c")),
        cache.digest("a", ("bc", "")),
        CountCache(b"another").digest("a", ("bc",)),
    }

    assert len(digests) == 5


def test_threads_share_the_counts() -> None:
    tokenizer = with_cache(Counted(), entries=8)
    texts = [f"{number % 20}{LONG}" for number in range(2000)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: estimate(tokenizer, text).input, texts))

    assert found == [estimate(Tokenizer({"o200k_base": Counted()}), text).input for text in texts]  # type: ignore[dict-item]  # only encodes


@pytest.fixture(scope="module")
def cached(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer(tokenizer._encodings, CountCache(b"key", entries=16))


long_texts = st.builds(
    lambda text, times: text * times,
    st.text(alphabet=st.characters(), min_size=1, max_size=40),
    st.integers(1, 60),
)


@given(
    st.lists(long_texts, max_size=5),
    st.lists(long_texts, max_size=2).map(tuple),
    st.sampled_from(["gpt-4o", "gpt-4", "claude-sonnet-4-5"]),
)
def test_counts_are_the_same_with_and_without_it(
    tokenizer: Tokenizer, cached: Tokenizer, texts: list[str], tools: tuple[str, ...], model: str
) -> None:
    prompt = Prompt(messages=tuple(PromptMessage(role="user", text=text) for text in texts), tools=tools)

    plain, first, again = (
        each.estimate(prompt, provider="openai", model=model, declared_max_output=None)
        for each in (tokenizer, cached, cached)
    )

    assert plain == first == again
