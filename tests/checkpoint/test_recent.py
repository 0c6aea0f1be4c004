"""What is asked again within a second is asked once."""

import asyncio

import pytest

from moorline_checkpoint import recent
from moorline_checkpoint.recent import Recent


class Counted:
    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0.01)
        return number


async def test_many_who_ask_at_the_same_time_and_soon_after_get_one_answer() -> None:
    answers, ask = Recent(), Counted()
    assert await asyncio.gather(*[answers.get("stats", ask) for _ in range(100)]) == [1] * 100
    assert await answers.get("stats", ask) == 1
    assert await answers.get("others", ask) == 2


async def test_after_a_second_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "WITHIN", 0.05)
    answers, ask = Recent(), Counted()
    assert await answers.get("stats", ask) == 1
    await asyncio.sleep(0.06)
    assert await answers.get("stats", ask) == 2


async def test_an_error_is_not_kept() -> None:
    answers = Recent()

    async def fail() -> int:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            await answers.get("stats", fail)
    assert await answers.get("stats", Counted()) == 1


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    answers, ask = Recent(), Counted()
    first = asyncio.create_task(answers.get("stats", ask))
    await asyncio.sleep(0)
    second = asyncio.create_task(answers.get("stats", ask))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
