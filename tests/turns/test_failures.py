"""What a failed turn leaves: the error says whether its effects stand, and how the turn is finished."""

import asyncio
from uuid import UUID

import pytest

from moorline import (
    AgentError,
    InvalidContext,
    MessageSetAside,
    MoorlineError,
    SessionBusy,
    Settings,
    StaleTurn,
    StoreUnavailable,
    TurnFailed,
    TurnTimeout,
)
from moorline_agents.transport import ModelReply, ModelRequest

from ..faults.proxy import proxied
from .claims import Connection
from .runtimes import Stall, World, after_tools, execute, failed_burst, obedient, runtime, say


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even on a busy machine a failed turn is released before its caller is told."""
    for module in ("background", "turn_queue"):
        monkeypatch.setattr(f"moorline.{module}.GRACE", 30)


@pytest.fixture(autouse=True)
async def _bookings(dsn: str) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")


async def booked(dsn: str) -> list[str]:
    return [row["what"] for row in await execute(dsn, "SELECT what FROM bookings ORDER BY what")]


def forgetful(request: ModelRequest) -> ModelReply:
    """Fails once the tools have run."""
    if after_tools(request):
        raise LookupError
    return obedient(request)


@pytest.mark.parametrize("message_id", [None, "m1"])
@pytest.mark.parametrize("text", ["book table", "ring bell", "book table chair"])
async def test_the_error_gives_the_id_with_which_the_turn_is_finished_and_nothing_done_twice(
    dsn: str, world: World, text: str, message_id: str | None
) -> None:
    async with runtime(dsn, forgetful, world=world) as moorline:
        with pytest.raises(AgentError) as caught:
            await say(moorline, text, message_id)
        device = await moorline.device_tag("d1")
    error = caught.value
    assert (error.effects_kept, error.retryable, error.device_id) == (True, True, device)
    assert error.message_id == message_id if message_id else UUID(error.message_id)
    assert f"stands: sent again with message_id {error.message_id!r}, the message is finished" in str(error)
    done = await booked(dsn), [*world.calls]

    async with runtime(dsn, world=world) as moorline:
        reply = await say(moorline, text, error.message_id)
    assert (reply, reply.replayed) == (f"1: {'; '.join(text.split()[1:])}", False)
    assert (await booked(dsn), world.calls) == done
    assert len(done[0]) + len(done[1]) == len(text.split()) - 1


@pytest.mark.parametrize("text", ["hello", "book table"])
async def test_a_turn_whose_tools_did_nothing_says_so(dsn: str, world: World, text: str) -> None:
    """The model failed at once, or the tool refused, or it raised and was rolled back."""

    def fails(request: ModelRequest) -> ModelReply:
        if text == "hello" or after_tools(request):
            raise LookupError
        return obedient(request)

    for trouble in (world.refused, world.failing):
        trouble.add("table")
        async with runtime(dsn, fails, world=world) as moorline:
            with pytest.raises(AgentError) as caught:
                await say(moorline, text)
        trouble.clear()
        assert not caught.value.effects_kept
        assert f"done nothing: send the message again with message_id {caught.value.message_id!r}" in str(caught.value)
    assert await booked(dsn) == []


async def test_an_outside_call_that_failed_may_have_happened(dsn: str, world: World) -> None:
    world.failing.add("bell")
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(AgentError) as caught:
            await say(moorline, "ring bell")
    assert caught.value.effects_kept


async def test_a_turn_that_is_too_slow_says_what_stands(dsn: str, world: World) -> None:
    async with runtime(dsn, Stall(after_tools), world=world) as moorline:
        with pytest.raises(TurnTimeout, match="stands: sent again with message_id") as caught:
            await say(moorline, "book table", timeout=5)  # long enough to book on a busy machine
        assert caught.value.effects_kept
    async with runtime(dsn, Stall(), world=world) as moorline:
        with pytest.raises(TurnTimeout, match="done nothing") as caught:
            await say(moorline, "hello", device="d2", timeout=0.5)
        assert not caught.value.effects_kept


async def test_a_message_that_waited_in_vain_did_nothing_unless_it_had_run_before(dsn: str, world: World) -> None:
    stall = Stall(lambda request: request.said[-1] == "hello")
    async with runtime(dsn, forgetful, world=world) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "book table", "m1")
    async with runtime(dsn, stall, world=world) as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m2"))
        await stall.reached.wait()
        for message_id, kept in (("m1", True), ("m3", False), (None, False)):
            with pytest.raises(TurnTimeout) as caught:
                await say(moorline, "book table", message_id, timeout=0.3)
            assert caught.value.effects_kept is kept, message_id
        with pytest.raises(SessionBusy) as busy:
            await say(moorline, "next", "m4", on_busy="reject")
        assert (busy.value.message_id, busy.value.effects_kept) == ("m4", False)
        assert "again in" in str(busy.value)
        assert "with message_id 'm4'." in str(busy.value)
        stall.go_on.set()
        await running


async def test_a_turn_that_was_taken_over_says_what_stands(dsn: str, world: World, connection: Connection) -> None:
    stall = Stall(after_tools)
    async with runtime(dsn, stall, world=world) as moorline:
        running = asyncio.create_task(say(moorline, "book table", "m1"))
        await stall.reached.wait()
        await connection.execute("UPDATE conversation_states SET claim_id = gen_random_uuid()")
        stall.go_on.set()
        with pytest.raises(StaleTurn) as caught:
            await running
    assert (caught.value.effects_kept, caught.value.message_id) == (True, "m1")


async def test_what_was_done_for_a_device_that_was_erased_meanwhile_is_not_denied(dsn: str, world: World) -> None:
    stall = Stall(after_tools)
    async with runtime(dsn, stall, world=world) as moorline:
        running = asyncio.create_task(say(moorline, "book table", "m1"))
        await stall.reached.wait()
        await moorline.erase("d1")
        stall.go_on.set()
        with pytest.raises(StaleTurn, match="nothing is done twice unless the device was erased") as caught:
            await running
    assert caught.value.effects_kept
    assert await booked(dsn) == ["table"]


async def test_what_the_database_refused_in_the_end_was_not_done(dsn: str, world: World) -> None:
    """Even though the journal was written in the same transaction."""
    await execute(dsn, "ALTER TABLE bookings ADD UNIQUE (what) DEFERRABLE INITIALLY DEFERRED")
    await execute(dsn, "INSERT INTO bookings VALUES ('d2', 'table')")
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(AgentError, match="Its tools have done nothing") as caught:
            await say(moorline, "book table", "m1")
    assert not caught.value.effects_kept


async def test_while_the_store_is_down_only_a_message_that_is_new_for_certain_has_done_nothing(
    dsn: str, world: World
) -> None:
    async with proxied(dsn) as proxy, runtime(proxy.dsn, world=world) as moorline:
        await say(moorline, "hello", "m0")
        async with proxy.refusing():
            proxy.reset()
            for message_id, kept in (("m1", True), (None, False)):
                with pytest.raises(StoreUnavailable) as caught:
                    await say(moorline, "book table", message_id)
                assert caught.value.effects_kept is kept, message_id
                assert caught.value.message_id


async def test_a_message_that_was_set_aside_is_not_worth_sending_again(dsn: str, world: World) -> None:
    async with runtime(dsn, forgetful, world=world) as moorline:
        for _ in range(3):
            with pytest.raises(AgentError):
                await say(moorline, "book table", "m1")
        with pytest.raises(MessageSetAside, match=r"set aside.* recover --message") as caught:
            await say(moorline, "book table", "m1")
    assert (caught.value.retryable, caught.value.effects_kept) == (False, True)
    assert "sent again" not in str(caught.value)
    assert await booked(dsn) == ["table"]


async def test_a_stream_that_fails_tells_the_same(dsn: str, world: World) -> None:
    async with runtime(dsn, forgetful, world=world) as moorline:
        *_, last = [event async for event in moorline.stream("book table", {"device_id": "d1"})]
    assert isinstance(last, TurnFailed)
    assert last.error.effects_kept
    assert UUID(last.error.message_id)


async def test_each_caller_of_a_burst_is_told_of_its_own_message(dsn: str, world: World) -> None:
    errors = await failed_burst(dsn, world)
    told = [(error.message_id, error.effects_kept) for error in errors if isinstance(error, MoorlineError)]
    assert told == [("m1", True), ("m2", True)]


async def test_a_team_can_demand_message_ids(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORLINE_REQUIRE_MESSAGE_ID", "true")
    assert Settings().require_message_id
    async with runtime(dsn, require_message_id=True) as moorline:
        with pytest.raises(InvalidContext, match=r"no message_id, and MOORLINE_REQUIRE_MESSAGE_ID demands one"):
            await say(moorline, "hello")
        assert await say(moorline, "hello", "m1") == "1: hello"
