"""The checker finds nothing in a good history, and finds each small break that is made in it on purpose."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.faults.checker import INVARIANTS, violations
from tests.faults.history import Event
from tests.faults.laboratory import Laboratory, Way
from tests.faults.recorded import Message, Recorded, Turn
from tests.faults.server import Server
from tests.faults.victims import struck, victims

Row = TypeVar("Row")
Break = Callable[[Recorded], Recorded]

ERASED = "erased-now-and-then"


@pytest.fixture(scope="module")
def good(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Two workers on four devices, one of which is erased; one worker is killed, and its turn recovered."""
    with server.database() as dsn:
        yield asyncio.run(history(dsn, tmp_path_factory.mktemp("good")))


async def history(dsn: str, folder: Path) -> Recorded:
    laboratory = Laboratory(way=Way(dsn=dsn, statement_cache_size=100), dsn=dsn, folder=folder, seed=1)
    await laboratory.prepare()
    try:
        hit = victims(laboratory, "after_effect")[:1]
        hit[0].start(laboratory, signal="SIGKILL", lease=2.0)
        await struck(laboratory, hit)
        for name in ("wa1", "wa2"):
            laboratory.start(name, devices=tuple(f"device-{n}" for n in range(4)), errands=hit[0].errands, lease=2.0)
        laboratory.start("wa3", devices=(ERASED,), erases=True, lease=2.0)

        def plenty() -> bool:
            oks = laboratory.events("ok")
            bookings = [ok for ok in oks if ok.device != ERASED and '"booked ' in (ok.reply or "")]
            acted = {event.idempotent for event in laboratory.events("outside") if event.device == "device-0"}
            erased = [event.at for event in laboratory.events("erased")]
            lost = [ok for ok in oks if ok.device == ERASED and ok.at < max(erased, default=0)]
            return len(oks) > 100 and len(bookings) > 1 and len(acted) > 1 and len(lost) > 0

        await laboratory.until(plenty, "a history with everything that can be broken")
        return await laboratory.finish()
    finally:
        laboratory.kill()


def test_a_good_history_violates_nothing(good: Recorded) -> None:
    assert violations(good) == []


def without(rows: tuple[Row, ...], *which: Row) -> tuple[Row, ...]:
    return tuple(row for row in rows if row not in which)


def instead(rows: tuple[Row, ...], old: Row, new: Row) -> tuple[Row, ...]:
    assert old in rows
    return tuple(new if row is old else row for row in rows)


def last_turn(good: Recorded, device: str = "device-0") -> Turn:
    return [turn for turn in good.turns if turn.device == device][-1]


def messages_of(good: Recorded, turn: Turn) -> list[Message]:
    return [row for row in good.messages if (row.device, row.turn_no) == (turn.device, turn.turn_no)]


def with_turn(good: Recorded, old: Turn, **changes: Any) -> Recorded:
    return replace(good, turns=instead(good.turns, old, replace(old, **changes)))


def with_read(good: Recorded, change: Callable[[dict[str, Any]], object]) -> Recorded:
    """A turn that saw several messages has read other ones."""
    turn = [turn for turn in good.turns if turn.device == "device-0" and turn.reply.count("m-") > 3][-1]
    read = json.loads(turn.reply)
    change(read)
    return with_turn(good, turn, reply=json.dumps(read))


def with_event(good: Recorded, old: Event, *new: Event) -> Recorded:
    return replace(good, events=tuple(sorted((*without(good.events, old), *new), key=lambda event: event.at)))


def some_event(good: Recorded, kind: str, **fields: Any) -> Event:
    found = [e for e in good.events if e.event == kind and all(getattr(e, k) == v for k, v in fields.items())]
    return found[-1]


def turn_lost(good: Recorded) -> Recorded:
    turn = last_turn(good)
    return replace(good, turns=without(good.turns, turn), messages=without(good.messages, *messages_of(good, turn)))


def reply_changed(good: Recorded) -> Recorded:
    return with_turn(good, last_turn(good), reply=last_turn(good, "device-1").reply)


def recovery_lost(good: Recorded) -> Recorded:
    ok = some_event(good, "ok", device="device-0")
    return with_event(good, ok, replace(ok, recovered=((1, "something else"),)))


def answered_twice(good: Recorded) -> Recorded:
    turn = last_turn(good)
    number = turn.turn_no + 1
    again = tuple(replace(row, turn_no=number) for row in messages_of(good, turn))
    return replace(good, turns=(*good.turns, replace(turn, turn_no=number)), messages=(*good.messages, *again))


def given_two_answers(good: Recorded) -> Recorded:
    ok = some_event(good, "ok", device="device-0")
    return with_event(good, ok, ok, replace(ok, turn_no=1))


def rung_twice(good: Recorded) -> Recorded:
    rung = some_event(good, "outside", idempotent=False, device="device-0")
    return with_event(good, rung, rung, rung)


def chimed_under_two_keys(good: Recorded) -> Recorded:
    chimed = some_event(good, "outside", idempotent=True, device="device-0")
    return with_event(good, chimed, chimed, replace(chimed, key="another"))


def two_effects(good: Recorded) -> Recorded:
    effect = next(row for row in good.effects if row.kind != "answer")
    return replace(good, effects=(*good.effects, effect))


def nobody_sent_it(good: Recorded) -> Recorded:
    message = messages_of(good, last_turn(good))[0].message
    return replace(good, events=tuple(event for event in good.events if event.message != message))


def another_text(good: Recorded) -> Recorded:
    row = messages_of(good, last_turn(good))[0]
    return replace(good, messages=instead(good.messages, row, replace(row, text=f"{row.message} say more")))


def answers_nothing(good: Recorded) -> Recorded:
    return replace(good, messages=without(good.messages, *messages_of(good, last_turn(good))))


def missed_one(good: Recorded) -> Recorded:
    return with_read(good, lambda read: read["seen"].pop(-2))


def read_another_answer(good: Recorded) -> Recorded:
    return with_read(good, lambda read: read["seen"].__setitem__(-2, [read["seen"][-2][0], "0123456789ab"]))


def read_out_of_order(good: Recorded) -> Recorded:
    return with_read(good, lambda read: read["seen"].insert(0, read["seen"].pop(1)))


def read_half_a_call(good: Recorded) -> Recorded:
    return with_read(good, lambda read: read.update(whole=False))


def answered_out_of_order(good: Recorded) -> Recorded:
    """A message is sent only after the next one was answered, yet comes before it in the transcript."""
    turn = last_turn(good)
    earlier = next(row for row in good.messages if (row.device, row.turn_no) == (turn.device, turn.turn_no - 1))
    last = messages_of(good, turn)[0]
    ok = some_event(good, "ok", message=last.message)
    mine = [event for event in good.events if event.message == earlier.message and event.event in ("invoke", "ok")]
    later = [replace(event, at=ok.at + 0.001 * n) for n, event in enumerate(mine, start=1)]
    return replace(good, events=tuple(sorted((*without(good.events, *mine), *later), key=lambda event: event.at)))


def began_too_early(good: Recorded) -> Recorded:
    turn = last_turn(good)
    before = next(t for t in good.turns if (t.device, t.turn_no) == (turn.device, turn.turn_no - 1))
    return with_turn(good, turn, started_at=before.committed_at - timedelta(microseconds=1))


def fence_went_back(good: Recorded) -> Recorded:
    return with_turn(good, last_turn(good), fence=1)


def superseded(good: Recorded) -> Recorded:
    """Another process had claimed the device just before a turn was committed."""
    turn = last_turn(good)
    begun = some_event(good, "begun", device=turn.device)
    moment = (turn.committed_at - timedelta(microseconds=1)).isoformat()
    return with_event(good, begun, begun, replace(begun, fence=turn.fence + 1, moment=moment))


def refused_and_there(good: Recorded) -> Recorded:
    committed = some_event(good, "committed", device="device-0")
    return with_event(good, committed, committed, replace(committed, event="stale"))


def checkpoint_of_no_turn(good: Recorded) -> Recorded:
    row = good.checkpoints[0]
    return replace(good, checkpoints=(*good.checkpoints, replace(row, fence=10**6)))


def values_of_no_turn(good: Recorded) -> Recorded:
    return replace(good, stored=(*good.stored, replace(good.stored[0], fence=10**6)))


def fence_never_given(good: Recorded) -> Recorded:
    state = good.states[0]
    return replace(good, states=instead(good.states, state, replace(state, fence=1)))


def answered_by_another(good: Recorded) -> Recorded:
    turn = last_turn(good)
    other = "echo" if turn.agent == "scheduling" else "scheduling"
    return with_turn(good, turn, agent=other)


def held_by_another(good: Recorded) -> Recorded:
    state = next(state for state in good.states if state.device == "device-0")
    other = "echo" if state.active_agent == "scheduling" else "scheduling"
    return replace(good, states=instead(good.states, state, replace(state, active_agent=other)))


def one_turn_more(good: Recorded) -> Recorded:
    state = good.states[0]
    return replace(good, states=instead(good.states, state, replace(state, last_turn_no=state.last_turn_no + 1)))


def state_of_an_older_turn(good: Recorded) -> Recorded:
    state = good.states[0]
    ns, checkpoint = state.heads[0]
    row = next(c for c in good.checkpoints if (c.device, c.ns, c.checkpoint) == (state.device, ns, checkpoint))
    return replace(good, checkpoints=instead(good.checkpoints, row, replace(row, turn_no=(row.turn_no or 0) - 1)))


def head_of_another_graph(good: Recorded) -> Recorded:
    state = good.states[0]
    return replace(good, states=instead(good.states, state, replace(state, heads=(*state.heads, ("echo", "1")))))


def left_open(good: Recorded) -> Recorded:
    return replace(good, states=instead(good.states, good.states[0], replace(good.states[0], open=True)))


def active_at_another_time(good: Recorded) -> Recorded:
    state = good.states[0]
    return replace(good, states=instead(good.states, state, replace(state, last_active_at=None)))


def slot_sold_twice(good: Recorded) -> Recorded:
    one, other = good.appointments[:2]
    return replace(
        good, appointments=instead(good.appointments, other, replace(other, starts=one.starts, ends=one.ends))
    )


def booked_twice_for_a_key(good: Recorded) -> Recorded:
    one = next(row for row in good.appointments if row.device != ERASED)
    day = timedelta(days=100)
    again = replace(one, reference="01234567", starts=one.starts + day, ends=one.ends + day)
    return replace(good, appointments=(*good.appointments, again))


def booking_lost(good: Recorded) -> Recorded:
    one = next(row for row in good.appointments if row.device != ERASED)
    return replace(good, appointments=without(good.appointments, one))


def shown_anothers(good: Recorded) -> Recorded:
    foreign = messages_of(good, last_turn(good, "device-1"))[0].message
    return with_read(good, lambda read: read["seen"].insert(0, [foreign, ""]))


def holds_anothers(good: Recorded) -> Recorded:
    row = next(row for row in good.stored if row.device == "device-0")
    foreign = messages_of(good, last_turn(good, "device-1"))[0].message
    return replace(good, stored=instead(good.stored, row, replace(row, tokens=row.tokens | {foreign})))


def still_failing(good: Recorded) -> Recorded:
    ok = some_event(good, "ok", worker="wa1")
    return with_event(good, ok, replace(ok, event="fail"))


def not_at_the_first_go(good: Recorded) -> Recorded:
    ok = some_event(good, "ok", worker="wa1")
    invoked = some_event(good, "invoke", worker="wa1", message=ok.message)
    return with_event(good, invoked, invoked, replace(invoked, event="fail"), invoked)


def gone_silent(good: Recorded) -> Recorded:
    return replace(good, healed_at=good.events[-1].at)


def erased_message(good: Recorded) -> Event:
    erased = next(event for event in good.events if event.event == "erase")
    found = [e for e in good.events if e.event == "ok" and e.device == erased.device and e.at < erased.at]
    return found[0]


def back_again(good: Recorded) -> Recorded:
    old = erased_message(good)
    row = next(row for row in good.messages if row.device == ERASED)
    return replace(good, messages=(*good.messages, replace(row, message=old.message)))


def remembered(good: Recorded) -> Recorded:
    """The values of a turn after the erasure still contain what was erased."""
    row = [row for row in good.stored if row.device == ERASED][-1]
    tokens = row.tokens | {erased_message(good).message}
    return replace(good, stored=instead(good.stored, row, replace(row, tokens=tokens)))


def told_after_erasure(good: Recorded) -> Recorded:
    ok = some_event(good, "ok", device=ERASED)
    read = json.loads(ok.reply or "")
    read["seen"].insert(0, [erased_message(good).message, ""])
    return with_event(good, ok, replace(ok, reply=json.dumps(read)))


BREAKS: dict[str, Sequence[Break]] = {
    "acknowledged_turns_are_kept": (turn_lost, reply_changed, recovery_lost),
    "messages_happen_once": (answered_twice, given_two_answers, rung_twice, chimed_under_two_keys, two_effects),
    "turns_have_their_messages": (nobody_sent_it, another_text, answers_nothing),
    "reads_are_prefixes": (missed_one, read_another_answer, read_out_of_order, read_half_a_call),
    "order_follows_real_time": (answered_out_of_order,),
    "turns_do_not_overlap": (began_too_early,),
    "fences_hold": (
        fence_went_back,
        superseded,
        refused_and_there,
        checkpoint_of_no_turn,
        values_of_no_turn,
        fence_never_given,
    ),
    "locks_carry_over": (answered_by_another, held_by_another),
    "numbers_agree": (one_turn_more, state_of_an_older_turn, head_of_another_graph, left_open, active_at_another_time),
    "bookings_are_single": (slot_sold_twice, booked_twice_for_a_key, booking_lost),
    "devices_keep_apart": (shown_anothers, holds_anothers),
    "workers_succeed_again": (still_failing, not_at_the_first_go, gone_silent),
    "erased_stays_erased": (back_again, remembered, told_after_erasure),
}


def test_every_invariant_is_broken() -> None:
    assert BREAKS.keys() == INVARIANTS.keys()


@pytest.mark.parametrize(
    ("invariant", "breaking"),
    [
        pytest.param(invariant, breaking, id=f"{invariant}-{breaking.__name__}")
        for invariant, breaks in BREAKS.items()
        for breaking in breaks
    ],
)
def test_a_break_is_caught(good: Recorded, invariant: str, breaking: Break) -> None:
    caught = {violation.partition(":")[0] for violation in violations(breaking(good))}
    assert invariant in caught
