"""Which messages a device may have in conversations that it has left: a new one is not looked up there, and one that is
delivered again always is."""

import pytest

from .claims import Connection
from .runtimes import execute, runtime, say

LONG_PAST = """
INSERT INTO conversation_messages (device_id, message_id, turn_no, arrival, text, status)
    SELECT 'd2', 'old-' || n, 1, -n, 'hello', 'done' FROM generate_series(1, $1::integer) AS n
"""

MARKS = "SELECT earlier_marks FROM conversation_states WHERE device_id = $1"


async def test_what_was_marked_is_recognised_and_hardly_anything_else(connection: Connection) -> None:
    marks = bytes(1024)
    for number in range(500):
        marks = await connection.fetchval("SELECT moorline_marked($1, $2)", marks, f"wamid.µ{number}")
    taken = "SELECT count(*) FROM generate_series($2::integer, $3) AS n WHERE moorline_marked($1, 'wamid.µ' || n) = $1"
    assert await connection.fetchval(taken, marks, 0, 499) == 500
    assert await connection.fetchval(taken, marks, 500, 10_499) < 60


@pytest.mark.parametrize("before", [999, 1000])
async def test_however_long_its_past_is_a_device_gets_its_replies_from_then(
    dsn: str, connection: Connection, before: int
) -> None:
    async with runtime(dsn) as moorline:
        reply = await say(moorline, "good day", "m1", device="d2")
        await execute(dsn, LONG_PAST, before)
        await moorline.link("d2", await moorline.link_code("d1"))
        assert (await connection.fetchval(MARKS, "d2") is None) == (before == 1000)
        assert await say(moorline, "hello", "m2", device="d2") == "1: hello"
        for message, text in (("m1", "good day"), ("old-1", "hello"), (f"old-{before}", "hello")):
            again = await say(moorline, text, message, device="d2")
            assert (again, again.replayed) == (reply, True)


async def test_a_device_that_goes_from_one_conversation_to_the_next_gets_its_replies_from_all(
    dsn: str, connection: Connection
) -> None:
    async with runtime(dsn) as moorline:
        said = [await say(moorline, "hello", "m0", device="d9")]
        for number in range(1, 6):
            await moorline.link("d9", await moorline.link_code(f"d{number}"))
            said.append(await say(moorline, f"hello {number}", f"m{number}", device="d9"))
        assert await moorline.unlink("d9")
        for number, before in enumerate(said):
            again = await say(moorline, f"hello {number}" if number else "hello", f"m{number}", device="d9")
            assert (again, again.replayed) == (before, True)
        assert await say(moorline, "anew", "m6", device="d9") == "2: anew"
        assert await moorline.erase("d9")
        assert await connection.fetchval(MARKS, "d9") is None
