import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.formats import FORMATS
from extproc.formats.base import BodyKind
from tests.fuzz import targets
from tests.fuzz.findings import FINDINGS
from tests.fuzz.seeds import FIXTURES, seeds

BATCH = (FIXTURES / "openai_files/batch.jsonl").read_bytes()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_bytes_break_a_promise(name: str) -> None:
    """A short, repeatable run; `python -m tests.fuzz` runs on, guided by coverage."""
    target = targets.TARGETS[name]

    @given(st.binary(max_size=200))
    @settings(derandomize=True, max_examples=150)
    def run(data: bytes) -> None:
        target(data)

    run()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_keep_every_promise(name: str) -> None:
    for data in seeds(name):
        targets.TARGETS[name](data)


def test_what_a_fuzzer_found_stays_fixed() -> None:
    for name, data in FINDINGS:
        targets.TARGETS[name](data)


def test_every_format_is_fuzzed_from_a_body_it_accepts() -> None:
    reached = set()
    for call, seed in targets.calls():
        body = targets.as_form(seed, BATCH) if call.body is BodyKind.FORM else seed
        targets.check_request(FORMATS[call.api].parse_request(body, call).request)
        reached.add(call.api)

    assert reached == FORMATS.keys(), "a format without a line in tests/fuzz/lines.py"
