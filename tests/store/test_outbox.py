"""Settlements that wait."""

import asyncio

from extproc.errors import StoreUnavailable
from extproc.store.outbox import Letter, Outbox


class Post:
    """Takes letters while it is open."""

    def __init__(self) -> None:
        self.is_open = False
        self.taken: list[str] = []

    async def send(self, letter: Letter) -> None:
        if not self.is_open:
            raise StoreUnavailable("closed")
        self.taken.append(letter.decision_id)


def letter(decision_id: str) -> Letter:
    return Letter(decision_id, {"c": 1}, 0)


async def test_what_could_not_be_sent_is_sent_once_somebody_is_there() -> None:
    post = Post()
    outbox = Outbox(post.send)
    for number in range(40):
        assert outbox.put(letter(f"d{number}"))
    await asyncio.sleep(0)

    post.is_open = True
    await outbox.sent()

    assert sorted(post.taken) == sorted(f"d{number}" for number in range(40))
    assert (len(outbox), outbox.dropped) == (0, 0)


async def test_what_finds_no_room_is_counted() -> None:
    outbox = Outbox(Post().send, size=2)

    assert [outbox.put(letter(name)) for name in "abc"] == [True, True, False]
    assert (len(outbox), outbox.dropped, "b" in outbox, "c" in outbox) == (2, 1, True, False)
    await outbox.close(0)


async def test_what_waits_at_the_end_is_given_up_and_counted() -> None:
    outbox = Outbox(Post().send)
    outbox.put(letter("a"))

    await outbox.close(0)

    assert (len(outbox), outbox.dropped) == (0, 1)


async def test_a_letter_that_cannot_be_sent_at_all_keeps_no_other() -> None:
    post = Post()
    post.is_open = True

    async def send(each: Letter) -> None:
        if each.decision_id == "bad":
            raise ValueError(each.decision_id)
        await post.send(each)

    outbox = Outbox(send)
    outbox.put(letter("bad"))
    outbox.put(letter("good"))
    await outbox.sent()

    assert (post.taken, len(outbox), outbox.dropped) == (["good"], 0, 1)
