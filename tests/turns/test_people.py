"""A device is an address that leads to a conversation: devices are linked and unlinked in the order of their messages,
and none of these is lost."""

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest

from moorline import Moorline
from moorline.errors import AlreadyLinked, LinkRefused, TooManyTries, UsageError
from moorline.link_codes import new_code, read_code
from moorline.texts import Texts
from moorline_checkpoint.people import MOST_TRIES

from .claims import Connection
from .runtimes import Stall, World, crashed, execute, in_queue, runtime, say

JOINED = Texts().joined


async def linked(moorline: Moorline, device: str = "d2", *, to: str = "d1") -> list[str]:
    """Links a device to another, and returns those that share the conversation."""
    return [each.device_id for each in await moorline.link(device, await moorline.link_code(to))]


async def texts(moorline: Moorline, device: str, *, own: bool = False) -> list[str]:
    """What was said in the device's conversation."""
    return [text for entry in await moorline.transcript(device, own=own) for text in entry.texts]


async def test_a_linked_device_goes_on_with_the_conversation(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        assert await say(moorline, "hello") == "1: hello"
        assert await say(moorline, "good day", device="d2") == "1: good day"
        assert await linked(moorline) == ["d1", "d2"]
        reply = await say(moorline, "and now", "m1", device="d2")
        assert (reply, reply.turn_no, reply.message_id, reply.notice) == ("2: and now", 2, "m1", None)
        assert await say(moorline, "go on", "m1") == "3: go on"
        assert await texts(moorline, "d1") == await texts(moorline, "d2") == ["hello", "and now", "go on"]
        assert [entry.message_ids[0] for entry in await moorline.transcript("d1")][1:] == ["m1", "m1"]
        assert await texts(moorline, "d2", own=True) == ["good day"]


async def test_the_other_devices_are_told_once_with_their_next_reply(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        assert (await say(moorline, "hello", device="d2")).notice is None
        told = await say(moorline, "hello", "m1")
        assert (told.notice, told.to_json()["notice"]) == (JOINED, JOINED)
        assert (await say(moorline, "hello", "m1")).notice == JOINED  # sent again
        assert (await say(moorline, "hello")).notice is None
        await linked(moorline, "d3", to="d2")
        assert [(await say(moorline, "hello", device=f"d{n}")).notice for n in (1, 2, 3)] == [JOINED, JOINED, None]


async def test_a_message_from_before_the_link_gets_its_reply_from_then(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        before = await say(moorline, "good day", "m1", device="d2")
        await say(moorline, "hello", "m1")
        await linked(moorline)
        again = await say(moorline, "good day", "m1", device="d2")
        assert (again, again.replayed, again.turn_no) == (before, True, 1)
        while_linked = await say(moorline, "and now", "m2", device="d2")
        assert await moorline.unlink("d2")
        again = await say(moorline, "and now", "m2", device="d2")
        assert (again, again.replayed) == (while_linked, True)
        assert await texts(moorline, "d2") == ["good day"]
        assert await texts(moorline, "d1") == ["hello", "and now"]


async def test_a_message_that_failed_before_the_link_is_finished_where_it_began(dsn: str) -> None:
    world = World()
    world.failing.add("late")
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(Exception, match="agent failed"):
            await say(moorline, "ring late", "m1", device="d2")
        await linked(moorline)
        world.failing.clear()
        assert "ring" in await say(moorline, "ring late", "m1", device="d2")
        assert await texts(moorline, "d2", own=True) == ["ring late"]
        assert await texts(moorline, "d2") == []
        assert len(world.calls) == 1


async def test_what_waits_goes_along_in_its_order(dsn: str) -> None:
    """The link takes its place behind the turn that runs and what waits before it."""
    stall = Stall(lambda request: request.messages[-1]["content"] == "stay")
    async with runtime(dsn, stall) as moorline:
        await say(moorline, "hello")
        code = await moorline.link_code("d1")
        running = [asyncio.create_task(say(moorline, "stay", device="d2"))]
        await stall.reached.wait()
        running.append(asyncio.create_task(say(moorline, "before", device="d2")))
        await in_queue(dsn, 1)
        linking = asyncio.create_task(moorline.link("d2", code))
        await in_queue(dsn, 2)
        for number in range(3):
            running.append(asyncio.create_task(say(moorline, f"after {number}", device="d2")))
            await in_queue(dsn, 3 + number)
        stall.go_on.set()
        assert [each.device_id for each in await linking] == ["d1", "d2"]
        replies = await asyncio.gather(*running)
        assert await texts(moorline, "d1") == ["hello", "after 0", "after 1", "after 2"]
        assert await texts(moorline, "d2", own=True) == ["stay", "before"]
        assert [str(reply) for reply in replies[2:]] == ["2: after 0", "3: after 1", "4: after 2"]


async def test_a_linker_that_died_makes_no_link_and_holds_nothing_up(dsn: str, connection: Connection) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as moorline:
        code = await moorline.link_code("d1")
        running = asyncio.create_task(say(moorline, "stay", device="d2"))
        await stall.reached.wait()
        linking = asyncio.create_task(moorline.link("d2", code))
        await in_queue(dsn, 1)
        await connection.execute(
            "UPDATE conversation_messages SET waiter_until = clock_timestamp() - interval '1 s' WHERE joins IS NOT NULL"
        )
        linking.cancel()
        await asyncio.wait([linking])
        stall.go_on.set()
        assert await running == "1: stay"
        assert await say(moorline, "alone", device="d2") == "2: alone"
        assert await moorline.recover() == 0
        assert await connection.fetchval("SELECT count(*) FROM conversation_messages WHERE joins IS NOT NULL") == 0
        assert len(await moorline.devices("d2")) == 1


async def test_recovery_removes_the_place_of_a_linker_that_died(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", device="d2")
        await connection.execute(
            "INSERT INTO conversation_messages (device_id, message_id, arrival, text, status, waiter_until, joins)"
            " VALUES ('d2', chr(31) || 'x', 9, '', 'waiting', clock_timestamp() - interval '1 s', 'd1')"
        )
        assert await moorline.recover() == 0
        assert await connection.fetchval("SELECT count(*) FROM conversation_messages WHERE joins IS NOT NULL") == 0
        assert await say(moorline, "still here", device="d2") == "2: still here"


async def test_devices_of_one_conversation_take_turns(dsn: str) -> None:
    """They may use the same message IDs, and what one says is not merged with what another says."""
    async with runtime(dsn) as one, runtime(dsn) as other:
        await linked(one)
        sent = [
            say(moorline, f"{device} {number}", f"m{number}", device=device, on_busy="merge")
            for number in range(4)
            for moorline, device in ((one, "d1"), (other, "d2"))
        ]
        replies = await asyncio.gather(*sent)
        said = [entry.texts for entry in await one.transcript("d1")]
        assert sorted(text for turn in said for text in turn) == sorted(f"d{d} {n}" for d in (1, 2) for n in range(4))
        assert all(len({text.split()[0] for text in turn}) == 1 for turn in said)
        numbers = {text: no for no, turn in enumerate(said, 1) for text in turn}
        assert [reply.turn_no for reply in replies] == [
            numbers[f"{device} {number}"] for number in range(4) for device in ("d1", "d2")
        ]


async def test_a_reply_goes_to_the_device_that_wrote(dsn: str, connection: Connection) -> None:
    """Also that of a turn whose process died, which another device finishes first."""
    told: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        moorline = await stack.enter_async_context(runtime(dsn))
        await linked(moorline, "d1", to="d0")
        await crashed(stack, dsn, connection, "lost", "m1", expired="d0")
        reply = await say(moorline, "hello", device="d0")
        assert (reply, reply.recovered) == ("2: hello", ())
        again = await say(moorline, "lost", "m1")
        assert (again, again.replayed) == ("1: lost", True)
        listening = await stack.enter_async_context(
            runtime(dsn, on_recovered=lambda device, each: told.append((device, str(each))))
        )
        await crashed(stack, dsn, connection, "lost too", "m2", expired="d0")
        await say(listening, "hello again", device="d0")
        assert told == [("d1", "3: lost too")]
        await crashed(stack, dsn, connection, "and this", "m3", expired="d0")
        assert await moorline.recover(lambda device, each: told.append((device, each.message_id or ""))) == 1
        assert told[1:] == [("d1", "m3")]


async def test_a_message_of_a_linked_device_is_stopped_and_set_aside_by_its_own_name(dsn: str) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "stay")
    world = World()
    world.failing.add("late")
    async with runtime(dsn, stall, world=world) as moorline, runtime(dsn) as other:
        await linked(moorline)
        running = asyncio.create_task(say(moorline, "stay", "m1", device="d2"))
        await stall.reached.wait()
        assert not await other.stop("d1", "m1")
        assert await other.stop("d2", "m1")
        async with asyncio.timeout(10):
            assert await running == "Stopped."
        for _ in range(3):
            with pytest.raises(Exception, match="agent failed"):
                await say(moorline, "chime late", "m2", device="d2")
        [dead] = await moorline.dead_letters()
        assert (dead.device_id, dead.message_id) == ("d2", "m2")
        world.failing.clear()
        assert await moorline.requeue("d1", "m2") is None
        assert "late" in (await moorline.requeue("d2", "m2") or "")


async def test_a_question_waits_for_whichever_device_answers(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        await connection.execute(
            """UPDATE conversation_turns SET status = 'interrupted', interrupt = '{"id": "i", "value": "which?"}'"""
        )
        asked = await moorline.pending("d2")
        assert asked is not None
        assert asked.value == "which?"
        assert await moorline.cancel("d2")
        assert await moorline.pending("d1") is None


async def test_codes_are_spoken_easily_and_used_once(dsn: str, connection: Connection) -> None:
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}", new_code()) for _ in range(100))
    assert len({new_code() for _ in range(1000)}) == 1000
    assert read_code(" oil0-1lab ") == "01101 1AB".replace(" ", "")
    assert [read_code(wrong) for wrong in ("", "1234-567", "1234-567U", None, "1" * 99)] == [None] * 5
    async with runtime(dsn) as moorline:
        code = await moorline.link_code("d1")
        [row] = await connection.fetch("SELECT * FROM moorline_codes")
        assert code.encode() not in row["code"]
        assert code.replace("-", "").encode() not in row["code"]
        await moorline.link("d2", code.lower().replace("-", " ").replace("0", "o").replace("1", "l"))
        with pytest.raises(LinkRefused):
            await moorline.link("d3", code)
        first, second = await moorline.link_code("d1"), await moorline.link_code("d1")
        with pytest.raises(LinkRefused):
            await moorline.link("d3", first)
        await connection.execute("UPDATE moorline_codes SET expires_at = clock_timestamp()")
        with pytest.raises(LinkRefused):
            await moorline.link("d3", second)
        for wrong in ("0000-0000", "no code", ""):
            with pytest.raises(LinkRefused):
                await moorline.link("d3", wrong)
        assert await moorline.devices("d3") == ()


async def test_a_device_is_not_linked_to_itself_or_in_a_circle(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        with pytest.raises(AlreadyLinked):
            await moorline.link("d1", await moorline.link_code("d1"))
        await linked(moorline)
        with pytest.raises(AlreadyLinked):
            await moorline.link("d1", await moorline.link_code("d2"))
        with pytest.raises(AlreadyLinked):
            await moorline.link("d2", await moorline.link_code("d1"))
        assert await linked(moorline, "d3", to="d2") == ["d1", "d2", "d3"]
        assert not await moorline.unlink("d4")


async def test_only_one_step_is_followed(dsn: str) -> None:
    """A device takes nobody along, and nobody comes into a conversation without a code of it."""
    async with runtime(dsn) as moorline:
        for device in ("d1", "d2", "d3"):
            await say(moorline, f"of {device}", device=device)
        await linked(moorline, "d2", to="d1")
        assert await linked(moorline, "d1", to="d3") == ["d3", "d1"]
        assert await say(moorline, "hello", device="d1") == "2: hello"
        assert await say(moorline, "hello", device="d2") == "2: hello"
        assert await texts(moorline, "d1") == ["of d3", "hello"]
        assert await texts(moorline, "d2") == ["of d1", "hello"]
        assert await texts(moorline, "d1", own=True) == []  # it is the other's by now


async def test_a_device_leaves_for_its_own_conversation_or_for_a_new_one(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await say(moorline, "good day", device="d2")
        await linked(moorline)
        assert await moorline.unlink("d1")  # whose conversation it was
        assert [each.device_id for each in await moorline.devices("d2")] == ["d2"]
        assert [each.device_id for each in await moorline.devices("d1")] == ["d1"]
        assert await say(moorline, "anew") == "1: anew"
        assert await texts(moorline, "d2") == ["hello"]
        assert await moorline.unlink("d2")
        assert await texts(moorline, "d2") == ["good day"]
        assert not await moorline.unlink("d2")


async def test_too_many_wrong_codes_end_the_guessing(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        code = await moorline.link_code("d1")
        for _ in range(MOST_TRIES["device"]):
            with pytest.raises(LinkRefused):
                await moorline.link("d2", "0000-0000")
        with pytest.raises(TooManyTries) as raised:
            await moorline.link("d2", code)
        assert 3500 < raised.value.retry_after <= 3600
        assert raised.value.retryable
        for number in range(MOST_TRIES["address"]):
            with pytest.raises(LinkRefused):
                await moorline.link(f"guess {number}".replace(" ", "-"), "0000-0000", address="192.0.2.7")
        with pytest.raises(TooManyTries):
            await moorline.link("d3", code, address="192.0.2.7")
        await connection.execute("UPDATE moorline_tries SET failed = $1", MOST_TRIES["all"])
        with pytest.raises(TooManyTries):
            await moorline.link("d4", code, address="192.0.2.8")
        await connection.execute("UPDATE moorline_tries SET until = clock_timestamp()")
        assert len(await moorline.link("d2", code, address="192.0.2.7")) == 2
        assert await moorline._backend.people.forget_old() > 0


async def test_the_server_says_whose_device_it_is(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "good day", device="d2")
        assert await say(moorline, "hello", person_id="ann") == "1: hello"
        assert await say(moorline, "and now", device="d2", person_id="ann") == "2: and now"
        assert (await say(moorline, "go on", person_id="ann")).notice == JOINED
        assert await texts(moorline, "d2", own=True) == ["good day"]
        await say(moorline, "mine", device="d3", person_id="bob")
        await linked(moorline, "d2", to="d3")
        assert (await say(moorline, "back", device="d2", person_id="ann")).turn_no == 4
        assert [each.device_id for each in await moorline.devices("d3")] == ["d3"]


async def test_a_device_that_changes_hands_does_not_show_the_one_what_the_other_said(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "secret", person_id="ann")
        assert await say(moorline, "hello", person_id="bob") == "1: hello"
        assert await texts(moorline, "d1") == ["hello"]
        assert await texts(moorline, "d1", own=True) == []
        assert await moorline.unlink("d1")
        assert await texts(moorline, "d1") == []
        assert await say(moorline, "me again", person_id="ann") == "2: me again"


async def test_many_devices_of_a_person_at_once_have_one_conversation(dsn: str) -> None:
    async with runtime(dsn) as one, runtime(dsn) as other:
        await asyncio.gather(
            *(
                say(moorline, f"d{number} {n}", device=f"d{number}", person_id=f"p{number % 2}")
                for n in range(2)
                for number in range(6)
                for moorline in ((one, other)[n],)
            )
        )
        for person in range(2):
            said = await texts(one, f"d{person}")
            assert sorted(said) == sorted(f"d{number} {n}" for n in range(2) for number in range(person, 6, 2))


async def test_erasing_a_linked_device_leaves_what_it_said_without_its_name(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await say(moorline, "good day", device="elsewhere")
        await linked(moorline, "elsewhere")
        await say(moorline, "and now", "m1", device="elsewhere")
        await moorline.link_code("elsewhere")
        assert await moorline.erase("elsewhere")
        assert await texts(moorline, "d1") == ["hello", "and now"]
        assert await everywhere(dsn, "elsewhere") == []
        assert await say(moorline, "who am I", device="elsewhere") == "1: who am I"


async def test_erasing_the_device_whose_conversation_is_shared_leaves_it_to_the_others(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        assert await moorline.erase("d1")
        assert await texts(moorline, "d2") == ["hello"]
        assert await texts(moorline, "d1") == []
        assert await say(moorline, "go on", device="d2") == "2: go on"
        assert await say(moorline, "who am I") == "1: who am I"


async def test_erasing_a_person_erases_all_devices_with_their_pasts(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", person_id="ann")
        for number in (2, 3):
            await say(moorline, "good day", device=f"d{number}")
            await linked(moorline, f"d{number}")
            await say(moorline, "and now", device=f"d{number}")
        await say(moorline, "not mine", device="d9")
        unknown: Any = "all"
        with pytest.raises(UsageError):
            await moorline.erase("d1", scope=unknown)
        assert await moorline.erase("d3", scope="person")
        for device in ("d1", "d2", "d3", "ann"):
            assert await everywhere(dsn, device) == []
        assert await texts(moorline, "d9") == ["not mine"]
        assert not await moorline.erase("d1", scope="person")
        assert await say(moorline, "anew", device="d2", person_id="ann") == "1: anew"


async def test_erasing_a_person_leaves_conversations_that_others_have_by_now(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        for device in ("d1", "d2", "d3"):
            await say(moorline, f"of {device}", device=device)
        await linked(moorline, "d2", to="d1")
        await linked(moorline, "d1", to="d3")  # d1 with d3, d2 with what d1 said
        assert await moorline.erase("d3", scope="person")
        assert await texts(moorline, "d2") == ["of d1"]
        assert await moorline.devices("d3") == ()
        await linked(moorline, "d1", to="d4")
        assert await moorline.erase("d2", scope="person")
        assert [each.device_id for each in await moorline.devices("d4")] == ["d4", "d1"]


async def test_erasing_a_device_of_several_people_leaves_them_their_conversations(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        people = [f"p{number}" for number in range(10)]  # more than a device remembers of where it was
        for person in people:
            await say(moorline, f"of {person}", device="tablet", person_id=person)
        assert await moorline.erase("tablet")
        for person in people:
            await say(moorline, "go on", device=f"phone-of-{person}", person_id=person)
            assert await texts(moorline, f"phone-of-{person}") == [f"of {person}", "go on"]
        named = "SELECT count(*) FROM conversation_messages WHERE address = 'tablet' OR message_id LIKE 'tablet%'"
        assert (await execute(dsn, named))[0]["count"] == 0
        assert await say(moorline, "anew", device="tablet") == "1: anew"


async def test_an_erased_device_keeps_its_new_conversation_when_the_others_are_erased(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        await moorline.erase("d1")
        assert await say(moorline, "a new life") == "1: a new life"
        assert await moorline.erase("d2", scope="person")
        assert await say(moorline, "again") == "2: again"


async def test_a_conversation_that_was_left_to_others_is_never_the_devices_again(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        assert await moorline.unlink("d1")
        await say(moorline, "secret", device="d2")
        assert await moorline.unlink("d2")
        assert await texts(moorline, "d1", own=True) == []
        await linked(moorline, "d1", to="d3")
        assert await moorline.unlink("d1")
        assert await say(moorline, "alone") == "1: alone"
        assert await texts(moorline, "d1") == ["alone"]


async def test_the_last_device_to_be_erased_takes_the_conversation_along(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await linked(moorline)
        await say(moorline, "good day", device="d2")
        await moorline.erase("d1")
        assert await texts(moorline, "d2") == ["hello", "good day"]
        await moorline.erase("d2")
        assert await execute(dsn, "SELECT 1 FROM conversation_turns") == []
        await say(moorline, "a new life")
        await moorline.erase("d1")
        assert await execute(dsn, "SELECT 1 FROM conversation_turns") == []


async def test_a_device_that_joins_while_a_person_is_erased_is_erased_too(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await say(moorline, "good day", device="d2")
        joining = connection.transaction()
        await joining.start()
        await connection.execute("SELECT 1 FROM conversation_states FOR UPDATE")
        await connection.execute(
            "UPDATE conversation_states SET leads_to = 'd1', linked_at = clock_timestamp() WHERE device_id = 'd2'"
        )
        erasing = asyncio.create_task(moorline.erase("d1", scope="person"))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not await connection.fetchval(waits):  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)
        await joining.commit()
        assert await erasing
        assert await execute(dsn, "SELECT 1 FROM conversation_turns UNION SELECT 1 FROM conversation_states") == []


async def test_nothing_passes_a_device_that_waits_to_join(dsn: str, connection: Connection) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as one, runtime(dsn) as other:
        await say(other, "hello")
        code = await one.link_code("d1")
        running = asyncio.create_task(say(one, "stay", device="d2"))
        await stall.reached.wait()
        linking = asyncio.create_task(one.link("d2", code))
        await in_queue(dsn, 1)
        after = asyncio.create_task(say(other, "after", device="d2"))
        await in_queue(dsn, 2)
        # The process of the link has had so many turns that others may go first.
        await connection.execute("UPDATE conversation_states SET worker_turns = 9 WHERE device_id = 'd2'")
        stall.go_on.set()
        await asyncio.gather(running, linking, after)
        assert await texts(one, "d1") == ["hello", "after"]


async def test_erasing_a_device_makes_its_turn_stale(dsn: str) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as moorline:
        await linked(moorline)
        running = asyncio.create_task(say(moorline, "stay", "m1", device="d2"))
        await stall.reached.wait()
        assert await moorline.erase("d2")
        stall.go_on.set()
        with pytest.raises(Exception, match="taken over"):
            await running
        assert await texts(moorline, "d1") == []
        assert await everywhere(dsn, "d2") == []


async def test_code_of_the_version_before_leaves_linked_devices_to_this_one(dsn: str, connection: Connection) -> None:
    """While a release rolls out, it finds them locked, and nothing of its claim stays."""
    begin = (
        "SELECT answer->>'outcome' FROM moorline_begin(ARRAY[$1], ARRAY['m9'], ARRAY[gen_random_uuid()], ARRAY['hi'],"
        " ARRAY[NULL::text], ARRAY['{}'], ARRAY['wait'], ARRAY['{}'], 'old', 60, 15, 15, 3, 200)"
    )
    async with runtime(dsn) as moorline:
        await linked(moorline)
        outcomes = [await connection.fetchval(begin, f"d{number}") for number in (1, 2, 3)]
        assert outcomes == ["locked", "locked", "claimed"]  # d1 has to be told something
        assert await connection.fetchval("SELECT count(*) FROM conversation_messages") == 1
        assert (await say(moorline, "hello")).notice == JOINED


async def everywhere(dsn: str, name: str) -> list[str]:
    """The tables in which something is left of a name."""
    found = []
    for row in await execute(
        dsn, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ):
        table = row["relname"]
        rows = await execute(dsn, f"SELECT 1 FROM {table} t WHERE t::text ~ ('\\m' || $1 || '\\M')", name)  # noqa: S608
        found += [table] if rows else []
    return found
