"""What belongs to an event loop is made once and ended once, with the loop."""

import asyncio

import pytest

from moorline_migrations.loops import PerLoop


class Things:
    """Numbered things that are made and ended slowly, so that others can ask meanwhile."""

    def __init__(self) -> None:
        self.made = 0
        self.ended: list[int] = []
        self.failing = False
        self.per_loop = PerLoop(self.make, self.end)

    async def make(self) -> int:
        await asyncio.sleep(0.01)
        if self.failing:
            raise OSError("no")
        self.made += 1
        return self.made

    async def end(self, thing: int) -> None:
        await asyncio.sleep(0.01)
        self.ended.append(thing)


def test_each_loop_has_one_of_its_own_that_ends_with_it() -> None:
    things = Things()

    async def ask() -> list[int]:
        return await asyncio.gather(*(things.per_loop.get() for _ in range(5)))

    assert asyncio.run(ask()) == [1] * 5
    assert things.ended == [1]
    assert asyncio.run(ask()) == [2] * 5
    assert things.ended == [1, 2]


def test_what_was_ended_is_made_anew_and_ends_only_once() -> None:
    things = Things()

    async def ask() -> None:
        assert await things.per_loop.get() == 1
        await asyncio.gather(*(things.per_loop.end() for _ in range(5)))
        assert things.ended == [1]
        assert await things.per_loop.get() == 2

    asyncio.run(ask())
    assert things.ended == [1, 2]


def test_the_loop_and_its_user_may_end_it_at_the_same_time() -> None:
    things = Things()

    async def ask() -> None:
        await things.per_loop.get()
        await asyncio.gather(asyncio.get_running_loop().shutdown_asyncgens(), things.per_loop.end())
        assert things.ended == [1]

    asyncio.run(ask())


def test_what_could_not_be_made_is_tried_again_by_the_next() -> None:
    things = Things()

    async def ask() -> int:
        things.failing = True
        with pytest.raises(OSError, match="no"):
            await things.per_loop.get()
        things.failing = False
        return await things.per_loop.get()

    assert asyncio.run(ask()) == 1
    assert things.ended == [1]
