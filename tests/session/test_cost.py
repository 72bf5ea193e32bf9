"""What a session's settlement costs, and what of it Envoy's access log is told."""

import json
from pathlib import Path

import pytest

from extproc.decision import Cost
from extproc.measure.prices import Prices
from extproc.model import Basis
from extproc.session.actions import Continue
from tests.session.playbook import Playbook, chat_body, chat_head, load

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "abc"}, "finish_reason": "stop"}


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices.bundled()


@pytest.fixture
def book(tmp_path: Path, prices: Prices) -> Playbook:
    return Playbook(load(tmp_path / "policies"), prices=prices)


def answer(model: str = "gpt-4o-mini-2024-07-18", **extra: object) -> bytes:
    return json.dumps({"id": "c", "model": model, "choices": [CHOICE]} | extra).encode()


def test_a_reported_usage_is_priced_and_the_access_log_is_told(book: Playbook, prices: Prices) -> None:
    book.request()
    book.answer_headers()

    (end,) = book.answer_body(answer(usage={"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}))

    assert isinstance(end, Continue)
    assert book.settlement.cost == Cost(8 * 150 + 3 * 600, prices.revision)
    assert end.metadata["cost_nano_usd"] == 3000
    assert end.metadata["cost_revision"] == prices.revision


def test_an_estimate_is_priced_by_the_same_figures_that_are_charged(book: Playbook) -> None:
    book.request()
    book.answer_headers()
    book.answer_body(answer())
    book.close()

    usage, cost = book.settlement.usage, book.settlement.cost
    assert book.settlement.basis is Basis.TOKENIZER
    assert cost is not None
    assert cost.nano_usd == (usage.input_tokens or 0) * 150 + (usage.output_tokens or 0) * 600


def test_a_model_without_a_price_has_no_cost(book: Playbook) -> None:
    book.request(body=chat_body(model="ours"))
    book.answer_headers()

    (end,) = book.answer_body(
        answer("ours", usage={"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11})
    )

    assert isinstance(end, Continue)
    assert book.settlement.cost is None
    assert "cost_nano_usd" not in end.metadata


@pytest.mark.parametrize("model", ["gpt-4o-mini", "ours"])
def test_what_the_provider_did_not_do_costs_nothing(book: Playbook, model: str) -> None:
    book.request(body=chat_body(model=model))
    book.answer_headers(503, end_of_stream=True)
    book.close()

    assert book.settlement.cost is not None
    assert book.settlement.cost.nano_usd == 0


def test_a_call_that_spends_nothing_costs_nothing(book: Playbook) -> None:
    book.headers(chat_head(method="GET", path="/v1/models", has_body=False))
    book.answer_headers(end_of_stream=True)
    book.close()

    assert book.settlement.cost is not None
    assert book.settlement.cost.nano_usd == 0


def test_an_output_that_nobody_knows_has_no_cost_rather_than_that_of_its_input(book: Playbook) -> None:
    book.request()
    book.answer_headers()
    book.close()

    assert book.settlement.basis is Basis.RESERVED
    assert book.settlement.usage.output_tokens is None
    assert book.settlement.cost is None
