"""Recorded conversations go through the real runtime as they were recorded, and a store that forgets is caught."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import asyncpg
import pytest

from moorline import Moorline, Settings
from moorline.errors import ConfigurationError
from moorline.replay.cli import summary
from moorline.replay.conversations import Conversation, read_conversations
from moorline.replay.expected import expectations
from moorline.replay.player import Played, Restart, opener, play
from moorline.replay.recorded import RecordedConversation

FILE = Path(__file__).parent / "conversations.jsonl"


async def play_all(settings: Settings, restart: Restart, limit: int | None = None) -> list[Played]:
    return [
        await play(conversation, restart=restart, settings=settings, open_moorline=opener(settings))
        for conversation in islice(read_conversations(FILE), limit)
    ]


@pytest.mark.parametrize("restart", [Restart.NONE, Restart.RUNTIME])
async def test_every_turn_is_as_recorded(settings: Settings, restart: Restart) -> None:
    played = await play_all(settings, restart)
    assert [(each.conversation, each.turns, each.mismatches) for each in played] == [
        ("salon-1", 5, ()),
        ("ride-1", 2, ()),
        ("dentist-1", 4, ()),
    ]
    assert [each.came_back for each in played] == [3, 0, 2]


async def test_every_turn_may_land_in_a_new_process(settings: Settings) -> None:
    played = await play_all(settings, Restart.PROCESS, limit=1)
    assert [(each.turns, each.mismatches) for each in played] == [(5, ())]


LEFT_BEHIND = """
SELECT (SELECT count(*) FROM conversation_states) + (SELECT count(*) FROM conversation_messages)
    + (SELECT count(*) FROM conversation_turns) + (SELECT count(*) FROM conversation_checkpoints)
    + (SELECT count(*) FROM conversation_values) + (SELECT count(*) FROM conversation_writes)
"""


async def test_a_replay_leaves_nothing_behind(settings: Settings, dsn: str) -> None:
    await play_all(settings, Restart.RUNTIME, limit=1)
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval(LEFT_BEHIND) == 0
    finally:
        await connection.close()


class Forgetful(Moorline):
    """A runtime whose store loses what one agent knew between two turns."""

    lost = "Weather"

    async def close(self) -> None:
        async with self._backend.saver.database.transaction() as connection:
            for table in ("writes", "values"):
                sql = f"DELETE FROM conversation_{table} WHERE channel = $1"  # noqa: S608
                await connection.execute(sql, f"{self.lost}.history")
        await super().close()


def forgetful(settings: Settings) -> Callable[[RecordedConversation], Moorline]:
    return lambda recorded: Forgetful(settings, agents=recorded.agents, client=recorded.client)


async def test_a_checkpointer_that_drops_what_one_agent_knew_is_caught(settings: Settings) -> None:
    conversation = next(read_conversations(FILE))
    played = await play(conversation, restart=Restart.RUNTIME, settings=settings, open_moorline=forgetful(settings))
    assert [(each.turn, each.what) for each in played.mismatches] == [
        (3, "the model of Weather was shown 1 messages, 5 were due; they differ from message 1 on"),
        (4, "the model of Weather was shown 1 messages, 8 were due; they differ from message 1 on"),
        (5, "the model of Weather was shown 1 messages, 10 were due; they differ from message 1 on"),
    ]
    told = summary([played], restart=Restart.RUNTIME, seconds=1)
    assert told.startswith("0 of 1 conversations as recorded, 3 mismatches.\n")


def test_expectations_follow_each_agents_own_messages() -> None:
    conversation = next(read_conversations(FILE))
    third = expectations(conversation)[2]
    assert [message["role"] for message in third.shown["Salon"]] == [
        "user", "assistant", "tool", "assistant", "user", "assistant", "tool", "user",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no JSON", "line 1"),
        ('{"id": "x", "turns": []}', "line 1: turns"),
        (
            '{"id": "x", "turns": [{"role": "user", "text": "a"}, {"role": "user", "text": "b"}]}',
            "turn 2 is the user's",
        ),
        ('{"id": "x", "turns": [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]}', "one service"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ConfigurationError, match=complaint):
        list(read_conversations(file))


def test_the_format_keeps_what_it_does_not_know_out() -> None:
    conversation = Conversation.model_validate(
        {"id": "x", "extra": 1, "turns": [
            {"role": "user", "text": "a", "intents": ["b"]},
            {"role": "assistant", "text": "c", "services": ["S"]},
        ]}
    )  # fmt: skip
    assert [(turn.agent, turn.reply) for turn in conversation.recorded()] == [("S", "c")]
