"""What a load test finds: each fault is made by a runtime that is broken in one place, and is seen as what it is."""

# ruff: noqa: ARG002 - what is broken looks at less than it is given

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from moorline import Settings
from moorline.errors import InternalError
from moorline.load import Answer, Plan, Report, StoredTurn, Target, echo_moorline, run_load
from moorline.load.conversations import MARK
from moorline.load.targets import InProcess

PLAN = Plan(devices=3, turns=3)


@pytest.fixture
async def target(dsn: str) -> AsyncIterator[InProcess]:
    async with echo_moorline(Settings(database_url=dsn)) as moorline:
        yield InProcess(moorline=moorline)


async def found(target: Target, plan: Plan = PLAN) -> Report:
    return await run_load(plan, target)


class Forgetful(InProcess):
    """Answers the second message of each device without a turn."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        if message_id.endswith(".2"):
            return Answer(text="port, answer 0:", turn_no=2)
        return await super().send(device_id, text, message_id)


class Refusing(InProcess):
    """Fails for good with the last message of each device."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        if message_id.endswith(".3"):
            raise InternalError("broken")
        return await super().send(device_id, text, message_id)


class Confused(InProcess):
    """Takes all people for one."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        return await super().send("everybody", text, message_id)

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        return await super().transcript("everybody")

    async def erase(self, device_id: str) -> None:
        await super().erase("everybody")


class Swapping(InProcess):
    """Gives each caller the reply that the caller before got."""

    last = Answer(text="nothing yet", turn_no=0)

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        answer = await super().send(device_id, text, message_id)
        answer, Swapping.last = Swapping.last, answer
        return answer


class WrongAgent(InProcess):
    """Keeps no session: from the second turn on the other agent answers."""

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        first, *others = await super().transcript(device_id)
        other = {"port": "starboard", "starboard": "port"}[str(first.agent)]
        return [first, *(replace(turn, agent=other) for turn in others)]


class Repeating(InProcess):
    """Takes every delivery for a new message."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        return await super().send(device_id, text, f"{message_id} {uuid4()}")

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        turns = await super().transcript(device_id)
        return [replace(turn, message_ids=[turn.message_ids[0].split()[0]]) for turn in turns]


class Amnesiac(InProcess):
    """Begins every conversation anew with its third message."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        if message_id.endswith(".3"):
            await self.moorline.run("start over", {"device_id": device_id})
        return await super().send(device_id, text, message_id)


async def test_a_sound_runtime_has_nothing_to_be_found(target: InProcess) -> None:
    report = await found(target)
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert report.good
    assert (report.answered, report.turns) == (9, 9)


async def test_a_message_that_was_answered_and_not_stored_is_lost(target: InProcess) -> None:
    report = await found(Forgetful(moorline=target.moorline))
    assert {mark[-1] for mark in report.verdict.lost} == {"2"}
    assert (len(report.verdict.lost), report.good) == (3, False)


async def test_a_message_that_fails_for_good_is_lost(target: InProcess) -> None:
    report = await found(Refusing(moorline=target.moorline))
    assert report.counts == {"lost": 3, "mixed": 0, "duplicated": 0}
    assert report.answered == 6
    assert not report.good


async def test_what_the_model_is_not_shown_again_is_lost(target: InProcess) -> None:
    report = await found(Amnesiac(moorline=target.moorline))
    forgotten = [mark for mark, what in report.verdict.lost.items() if "forgotten" in what]
    assert sorted(mark[-1] for mark in forgotten if MARK.fullmatch(mark)) == ["1", "1", "1", "2", "2", "2"]


async def test_conversations_that_run_into_one_are_mixed(target: InProcess) -> None:
    report = await found(Confused(moorline=target.moorline))
    assert report.counts["mixed"] >= 6


async def test_a_reply_that_belongs_to_another_message_is_mixed(target: InProcess) -> None:
    assert (await found(Swapping(moorline=target.moorline))).counts["mixed"] == 9


async def test_an_agent_that_does_not_hold_the_session_makes_it_mixed(target: InProcess) -> None:
    assert (await found(WrongAgent(moorline=target.moorline))).counts["mixed"] == 6


async def test_a_message_that_is_answered_twice_is_duplicated(target: InProcess) -> None:
    report = await found(Repeating(moorline=target.moorline), replace(PLAN, duplicates=True))
    assert report.counts["duplicated"] == 9
    assert (await found(target, replace(PLAN, duplicates=True))).good
