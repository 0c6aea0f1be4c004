"""A booking across processes: each message in a new process, on one database, with the rehearsal model."""

import asyncio
import os
import sys

import asyncpg

from moorline_agents.scheduling.demo import seed_demo


async def say(dsn: str, text: str) -> str:
    """One message through `moorline chat`, in a new process."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("MOORLINE_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moorline",
        "chat",
        "--device",
        "d1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**keep, "DATABASE_URL": dsn},
    )
    answer, complaint = await process.communicate(f"{text}\n".encode())
    assert process.returncode == 0, complaint.decode()
    assert answer.decode().count("\n") == 1
    return answer.decode().strip()


async def test_found_in_one_process_asked_in_the_next_booked_in_a_third_and_cancelled_after_a_yes(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await seed_demo(connection)
        offer = await say(dsn, "When can I get a haircut?")
        assert offer.startswith("[scheduling]")
        assert await connection.fetchval("SELECT active_agent FROM conversation_states WHERE device_id = 'd1'") == (
            "scheduling"
        )
        assert await connection.fetchval("SELECT count(*) FROM appointments") == 0

        question = await say(dsn, "The first one, please")
        assert question.startswith("[scheduling] Shall I book Haircut with ")
        assert await connection.fetchval("SELECT count(*) FROM appointments") == 0

        booked = await say(dsn, "yes")
        assert "booked" in booked.lower()
        rows = await connection.fetch("SELECT device_id, status FROM appointments")
        assert [tuple(row) for row in rows] == [("d1", "booked")]

        await say(dsn, "Please cancel my appointment")
        assert await connection.fetchval("SELECT status FROM appointments") == "booked"
        cancelled = await say(dsn, "Yes, please")
        assert "cancel" in cancelled.lower()
        assert await connection.fetchval("SELECT status FROM appointments") == "cancelled"

        await say(dsn, "Thanks, that's all")
        assert await connection.fetchval("SELECT active_agent FROM conversation_states") is None
        assert await connection.fetchval("SELECT last_turn_no FROM conversation_states") == 6
    finally:
        await connection.close()
