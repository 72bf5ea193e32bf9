"""The circuit breaker, by a clock that stands still."""

from extproc.store.breaker import BreakerState, CircuitBreaker
from tests.store.redis_bench import Clock


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock, failures_in_a_row=3, open_s=1)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_calls_go_through_until_as_many_failed_in_a_row() -> None:
    breaker = CircuitBreaker(Clock(), failures_in_a_row=3, open_s=1)

    breaker.failed()
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()

    assert breaker.state is BreakerState.CLOSED
    breaker.failed()
    assert (breaker.state, breaker.allows()) == (BreakerState.OPEN, False)


def test_after_a_while_one_call_finds_out() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.s = 0.99
    assert not breaker.allows()

    clock.s = 1.0

    assert breaker.state is BreakerState.HALF_OPEN
    assert [breaker.allows() for _ in range(3)] == [True, False, False]


def test_a_probe_that_fails_opens_it_again_and_one_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.s = 1.0
    assert breaker.allows()

    breaker.failed()
    clock.s = 1.99
    assert not breaker.allows()
    clock.s = 2.0
    assert breaker.allows()
    breaker.succeeded()

    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_a_probe_whose_caller_left_is_made_by_the_next() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.s = 1.0
    assert breaker.allows()

    breaker.abandoned()

    assert breaker.allows()
