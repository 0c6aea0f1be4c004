"""The checker: thirteen invariants of what a run left behind, each a function that yields its violations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise

from tests.faults.conversation import Erasure, Said, conversations, erasures, read_of
from tests.faults.history import Event
from tests.faults.recorded import Recorded

LAST = 5
"""The last operations of each worker, which have to succeed once the fault is over."""

ENOUGH = 20
"""Messages that an agent's bounded history always keeps, whatever else is in it."""


@dataclass(frozen=True)
class Evidence:
    """A run, and what more than one invariant derives from it."""

    recorded: Recorded

    @cached_property
    def conversations(self) -> Mapping[str, Sequence[Said]]:
        return conversations(self.recorded)

    @cached_property
    def said(self) -> Sequence[Said]:
        return [said for turns in self.conversations.values() for said in turns]

    @cached_property
    def erasures(self) -> Mapping[str, Sequence[Erasure]]:
        return erasures(self.recorded)

    @cached_property
    def invoked(self) -> Mapping[tuple[str, str], float]:
        """By device and message, when it was first sent."""
        first: dict[tuple[str, str], float] = {}
        for event in self.events("invoke"):
            first.setdefault((event.device, event.message), event.at)
        return first

    @cached_property
    def acknowledged(self) -> Sequence[Event]:
        """The answers whose turns have to be there: the device was not erased while they were asked for, or since."""
        asked: dict[tuple[str, str, str], float] = {}
        kept = []
        for event in self.events("invoke", "ok"):
            asker = event.worker, event.device, event.message
            if event.event == "invoke":
                asked[asker] = event.at
            elif all(erasure.ended < asked[asker] for erasure in self.erasures.get(event.device, ())):
                kept.append(event)
        return kept

    def events(self, *kinds: str) -> Iterator[Event]:
        return (event for event in self.recorded.events if event.event in kinds)


def violations(recorded: Recorded) -> list[str]:
    """All violations in the run, each line with its invariant before the colon."""
    evidence = Evidence(recorded)
    return [f"{name}: {what}" for name, check in INVARIANTS.items() for what in check(evidence)]


def acknowledged_turns_are_kept(evidence: Evidence) -> Iterator[str]:
    """Every answer comes from a stored turn with its number, reply and message."""
    replies = {(turn.device, turn.turn_no): turn.reply for turn in evidence.recorded.turns}
    numbers = {(row.device, row.message): row.turn_no for row in evidence.recorded.messages}
    for ok in evidence.acknowledged:
        if numbers.get((ok.device, ok.message)) != ok.turn_no:
            yield f"{ok.message} of {ok.device} was answered in turn {ok.turn_no}, but is not stored"
        answers = ((ok.turn_no, ok.reply), *ok.recovered)
        for number, reply in answers:
            if number is not None and replies.get((ok.device, number)) != reply:
                yield f"turn {number} of {ok.device} was returned by {ok.worker}, but is not stored like that"


def messages_happen_once(evidence: Evidence) -> Iterator[str]:
    """A message has at most one turn, one reply and one set of effects."""
    answered = Counter((said.turn.device, said.read.seen[-1][0]) for said in evidence.said if said.read)
    yield from (f"{key} was answered in {count} turns" for key, count in answered.items() if count > 1)

    answers = defaultdict(set)
    for ok in evidence.acknowledged:
        answers[ok.device, ok.message].add((ok.turn_no, ok.reply))
    yield from (f"{key} was given {len(given)} answers" for key, given in answers.items() if len(given) > 1)

    effects = Counter((row.device, row.message) for row in evidence.recorded.effects if row.kind != "answer")
    yield from (f"{key} has {count} effects" for key, count in effects.items() if count > 1)

    calls = defaultdict(list)
    for event in evidence.events("outside"):
        calls[event.message].append(event)
    for message, events in calls.items():
        if events[0].device in evidence.erasures:
            continue  # erased, it was a new message
        if len({event.key for event in events}) > 1 or (len(events) > 1 and not events[0].idempotent):
            yield f"{message} acted {len(events)} times outside"


def turns_have_their_messages(evidence: Evidence) -> Iterator[str]:
    """No stored turn or message is one that nobody sent."""
    texts = {(event.device, event.message): event.text for event in evidence.events("invoke")}
    for row in evidence.recorded.messages:
        if texts.get((row.device, row.message)) != row.text:
            yield f"nobody sent {row.message} of {row.device} with this text"
    numbered = {(row.device, row.turn_no) for row in evidence.recorded.messages}
    for turn in evidence.recorded.turns:
        if (turn.device, turn.turn_no) not in numbered:
            yield f"turn {turn.turn_no} of {turn.device} answers no message"


def reads_are_prefixes(evidence: Evidence) -> Iterator[str]:
    """The agent that gave a reply was shown exactly its own earlier messages and answers."""
    for said in evidence.said:
        where = f"turn {said.turn.turn_no} of {said.turn.device}"
        if said.read is None:
            yield f"{where} has a reply that the model did not give"
            continue
        expected = (*said.known, *((message, "") for message in said.messages))
        seen = said.read.seen
        if seen != expected[-len(seen) :] or (len(seen) < len(expected) and len(seen) < ENOUGH):
            yield f"{where} read {len(seen)} messages that are not the last of the {len(expected)} before it"
        if not said.read.whole:
            yield f"{where} read a tool call without its result"


def order_follows_real_time(evidence: Evidence) -> Iterator[str]:
    """A message sent after another one's answer comes later in the transcript."""
    acknowledged: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for ok in evidence.acknowledged:
        acknowledged[ok.device].append((ok.at, ok.turn_no or 0))
    for device, turns in evidence.conversations.items():
        for said in turns:
            sent = max(evidence.invoked.get((device, message), 0.0) for message in said.messages)
            earlier = [number for at, number in acknowledged[device] if at < sent]
            if earlier and max(earlier) >= said.turn.turn_no:
                yield f"turn {said.turn.turn_no} of {device} answers what was sent after the answer of {max(earlier)}"


def turns_do_not_overlap(evidence: Evidence) -> Iterator[str]:
    """Turns of a device run one after another, by the database's clock."""
    for device, turns in evidence.conversations.items():
        for said in turns:
            if said.turn.started_at > said.turn.committed_at:
                yield f"turn {said.turn.turn_no} of {device} was committed before it began"
        for before, after in pairwise(turns):
            if after.turn.started_at < before.turn.committed_at:
                yield f"turn {after.turn.turn_no} of {device} began before the one before it was committed"


def fences_hold(evidence: Evidence) -> Iterator[str]:
    """Fences rise with the turns; no stored row has a fence that was not committed, or not in time."""
    recorded = evidence.recorded
    yield from _superseded(evidence)
    committed = {(turn.device, turn.fence): turn.turn_no for turn in recorded.turns}
    for row in recorded.checkpoints:
        number = None if row.fence is None else committed.get((row.device, row.fence))
        # What pruning has left of a turn, only because later values are made of it, has the number 0.
        if number is None or row.turn_no not in (0, number):
            yield f"a checkpoint of {row.device} carries fence {row.fence}, which is not that of turn {row.turn_no}"
    for stored in recorded.stored:
        if stored.fence is None or (stored.device, stored.fence) not in committed:
            yield f"values or writes of {stored.device} carry fence {stored.fence}, which was not committed"
    refused = {event.fence for event in evidence.events("stale")}
    for device, fence in committed:
        if fence in refused:
            yield f"fence {fence} of {device} was committed though its commit was refused"
    given = {state.device: state.fence for state in recorded.states}
    for device, fence in (*committed, *((effect.device, effect.fence) for effect in recorded.effects)):
        if fence > given.get(device, 0):
            yield f"{device} carries fence {fence}, which it was never given"


def _superseded(evidence: Evidence) -> Iterator[str]:
    claims: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for event in evidence.events("begun"):
        claims[event.device].append((event.fence or 0, datetime.fromisoformat(event.moment or "")))
    for device, turns in evidence.conversations.items():
        for before, after in pairwise(turns):
            if after.turn.fence <= before.turn.fence:
                yield f"turn {after.turn.turn_no} of {device} has no greater fence than the one before it"
        for turn in (said.turn for said in turns):
            if any(fence > turn.fence and moment < turn.committed_at for fence, moment in claims[device]):
                yield f"turn {turn.turn_no} of {device} was committed after its fence had been superseded"


def locks_carry_over(evidence: Evidence) -> Iterator[str]:
    """The agent of a turn is the one to which the turn before it left the lock, unless the message was handed over."""
    for device, turns in evidence.conversations.items():
        for said in turns:
            if said.turn.agent != said.agents[-1]:
                yield f"turn {said.turn.turn_no} of {device} was answered by {said.turn.agent}, not {said.agents[-1]}"
            if said.read and said.read.by != said.turn.agent:
                yield f"turn {said.turn.turn_no} of {device} has the reply of {said.read.by}"
    holders = {state.device: state.active_agent for state in evidence.recorded.states}
    for device, turns in evidence.conversations.items():
        if holders.get(device) != turns[-1].leaves:
            yield f"{device} is held by {holders.get(device)}, its last turn left it to {turns[-1].leaves}"


def numbers_agree(evidence: Evidence) -> Iterator[str]:
    """Turn numbers have no gaps; lock, state and reply carry the number of one turn."""
    heads = {(row.device, row.ns, row.checkpoint): row for row in evidence.recorded.checkpoints}
    for state in evidence.recorded.states:
        turns = evidence.conversations.get(state.device, ())
        numbers = [said.turn.turn_no for said in turns]
        if numbers != list(range(1, state.last_turn_no + 1)):
            yield f"{state.device} counts {state.last_turn_no} turns and has others"
        if turns and state.last_active_at != turns[-1].turn.committed_at:
            yield f"{state.device} was last active at another time than its last turn's"
        if state.open:
            yield f"{state.device} has a turn that nobody finished"
        # All agents are nodes of the manager graph, so its namespace is the only one, and every turn moves its head.
        if [ns for ns, _ in state.heads] != [""] * bool(turns):
            yield f"{state.device} has other heads than the manager graph's"
            continue
        for ns, checkpoint in state.heads:
            head = heads.get((state.device, ns, checkpoint))
            last = turns[-1].turn
            if head is None or (head.turn_no, head.fence) != (last.turn_no, last.fence):
                yield f"the state of {state.device} is not that of its last turn"
    for device in evidence.conversations.keys() - {state.device for state in evidence.recorded.states}:
        yield f"{device} has turns and no state"


def bookings_are_single(evidence: Evidence) -> Iterator[str]:
    """One booking for each slot and for each message; exactly what replies say was booked is booked."""
    for before, after in pairwise(sorted(evidence.recorded.appointments, key=lambda a: (a.provider, a.starts))):
        if before.provider == after.provider and after.starts < before.ends:
            yield f"{before.device} and {after.device} have the same slot"
    booked = Counter((row.device, row.reference) for row in evidence.recorded.appointments)
    results = [(row.device, row.result["value"]) for row in evidence.recorded.effects if "value" in (row.result or ())]
    journaled = Counter(
        (device, value["appointment"]["reference"]) for device, value in results if value["status"] == "booked"
    )
    for device, reference in booked.keys() | journaled.keys():
        if booked[device, reference] != journaled[device, reference]:
            yield f"appointment {reference} of {device} and its record disagree"
    for said in evidence.said:
        did = (said.read.did if said.read else None) or ""
        if did.startswith("booked ") and not booked[said.turn.device, did.removeprefix("booked ")]:
            yield f"{said.turn.device} was told of an appointment that is not there"


def devices_keep_apart(evidence: Evidence) -> Iterator[str]:
    """A device sees and stores only its own messages."""
    owners: dict[str, set[str]] = defaultdict(set)
    for device, message in evidence.invoked:
        owners[message].add(device)
    for said in evidence.said:
        for message, _ in said.read.seen if said.read else ():
            if said.turn.device not in owners[message]:
                yield f"{said.turn.device} was shown {message}"
    for stored in evidence.recorded.stored:
        for message in stored.tokens:
            if stored.device not in owners[message]:
                yield f"{stored.device} holds {message}"


def workers_succeed_again(evidence: Evidence) -> Iterator[str]:
    """Once the fault is over, the last operations of each worker succeed at the first attempt."""
    lost = {event.worker for event in evidence.events("failpoint") if event.error == "SIGKILL"}
    for worker in sorted({event.worker for event in evidence.events("ready")} - lost):
        outcomes: dict[str, list[str]] = defaultdict(list)
        for event in evidence.events("invoke", "ok", "fail", "info", "dead"):
            if event.worker == worker and event.at > evidence.recorded.healed_at:
                outcomes[event.message].append(event.event)
        if list(outcomes.values())[-LAST:] != [["invoke", "ok"]] * LAST:
            yield f"the last operations of {worker} came to {list(outcomes.values())[-LAST:]}"


def erased_stays_erased(evidence: Evidence) -> Iterator[str]:
    """Nothing that was finished when an erasure began comes back, and no later message is shown it."""
    last: dict[tuple[str, str], dict[str, Event]] = defaultdict(dict)
    asked: dict[tuple[str, str, str], float] = {}
    shown: list[tuple[str, float, frozenset[str]]] = []
    for event in evidence.events("invoke", "ok", "fail", "info", "dead"):
        last[event.device, event.message][event.worker] = event
        asker = event.worker, event.device, event.message
        if event.event == "invoke":
            asked[asker] = event.at
        elif event.event == "ok":
            shown.append((event.device, asked[asker], _shown(event.reply)))
    present: dict[str, set[str]] = defaultdict(set)
    rows = evidence.recorded.messages, evidence.recorded.effects
    for device, message in [(row.device, row.message) for table in rows for row in table]:
        present[device].add(message)
    for stored in evidence.recorded.stored:
        present[stored.device] |= stored.tokens
    for device, erasure in ((device, erasure) for device, found in evidence.erasures.items() for erasure in found):
        gone = {
            message
            for (owner, message), events in last.items()
            if owner == device and all(e.event != "invoke" and e.at < erasure.began for e in events.values())
        }
        yield from (f"{message} of {device} is there again" for message in sorted(gone & present[device]))
        for _, at, messages in (entry for entry in shown if entry[0] == device):
            if at > erasure.ended and messages & gone:
                yield f"{device} was shown {sorted(messages & gone)} after they had been erased"


def _shown(reply: str | None) -> frozenset[str]:
    read = read_of(reply or "")
    return frozenset(message for message, _ in read.seen) if read else frozenset()


Invariant = Callable[[Evidence], Iterator[str]]

INVARIANTS: Mapping[str, Invariant] = {
    check.__name__: check
    for check in (
        acknowledged_turns_are_kept,
        messages_happen_once,
        turns_have_their_messages,
        reads_are_prefixes,
        order_follows_real_time,
        turns_do_not_overlap,
        fences_hold,
        locks_carry_over,
        numbers_agree,
        bookings_are_single,
        devices_keep_apart,
        workers_succeed_again,
        erased_stays_erased,
    )
}
