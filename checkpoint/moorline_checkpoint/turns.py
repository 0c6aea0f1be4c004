"""Turns: claiming a device for one message, and committing everything that the turn wrote.

The claims, or the commits, of all devices at one moment go out as one statement; see `batcher`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from moorline_checkpoint.batcher import Batcher
from moorline_checkpoint.claims import (
    Claim,
    Claimed,
    answer_to,
    conversation_in,
    parsed,
    question_in,
    resume_in,
    turn_in,
)
from moorline_checkpoint.commits import Committed, Outcome, outcome_of
from moorline_checkpoint.damage import readable, sound
from moorline_checkpoint.device_key import admitted
from moorline_checkpoint.ending import tell_ended
from moorline_checkpoint.files import pack_message, unpack_message
from moorline_checkpoint.head_cache import CachedHeads, HeadCache
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.packing import load_json, pack_json, pack_text, unpack_text
from moorline_checkpoint.queue import DeadLetter, QueueAnswer
from moorline_checkpoint.rows import CheckpointRow, HeadRows, ValueRow, WriteRow, columns, head_rows, placed_columns
from moorline_checkpoint.sessions import log_lock
from moorline_checkpoint.tags import DeviceTags
from moorline_checkpoint.tool_transaction import ToolConnection, ToolTransaction, own_block, tool_transaction
from moorline_checkpoint.transaction import TurnTransaction, stale, turn_transaction
from moorline_checkpoint.transcripts import Transcript, entry_in
from moorline_checkpoint.turn import AskedQuestion, OpenTurn, TurnRecord, stored_id
from moorline_migrations.errors import StateDamaged

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

LEASE_SECONDS = 15.0
"""Seconds a claimed turn is believed alive without a heartbeat, on the database's clock."""

HEARTBEAT = 5.0
"""Seconds between heartbeats of a running turn."""

WAITER_SECONDS = 15.0
"""Seconds a waiting message keeps its place without asking again."""

MAX_ATTEMPTS = 3
"""Claims of one message before it is set aside."""


KEEP_TURNS = 20
"""Turns of a device whose last checkpoints are kept."""

QUEUE_MAX = 200
"""Messages of a device that may wait at the same time."""


class Turns:
    """Claims, commits and releases turns. All state is in the database; any number of processes may work at once.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    def __init__(
        self, database: Database, *, default_ttl: int, keep_turns: int = KEEP_TURNS, queue_max: int = QUEUE_MAX
    ) -> None:
        """`default_ttl` seconds is the session TTL of a new device. Of each device the last checkpoints of at least the
        last `keep_turns` turns are kept, and of fewer than twice as many; at most `queue_max` messages wait."""
        self._database = database
        self._default_ttl = default_ttl
        self._keep_turns = keep_turns
        self._queue_max = queue_max
        self._worker = str(uuid4())
        self._heads = HeadCache()
        self._begins = Batcher(
            self._begin_all, key=lambda claim: claim.device_id, traced=lambda: database.tracing.statement("begin")
        )
        self._commits = Batcher(
            self._commit_all,
            key=lambda outcome: outcome.turn.device_id,
            traced=lambda: database.tracing.statement("commit"),
        )

    @property
    def tags(self) -> DeviceTags:
        """The tags of devices in logs and errors."""
        return self._database.tags

    async def begin(self, message: IncomingMessage, *, claim_id: UUID) -> OpenTurn | QueueAnswer:
        """Claims the device's next turn, which may be one for other messages that a crashed process left behind.

        Idempotent in `claim_id`: called again with the same one, it returns the same turn. A message that has to wait
        keeps its place for `WAITER_SECONDS` seconds after it last asked.
        """
        cached = self._heads.get(message.device_id)
        claim = Claim(
            device_id=message.device_id,
            message_id=pack_text(message.message_id),
            claim_id=claim_id,
            text=pack_message(message.text, message.files),
            resume=None if message.resume is None else pack_json(message.resume.to_json()),
            values=pack_json(message.values),
            on_busy=message.on_busy,
            known=json.dumps(cached.ids()),
            person=None if message.person_id is None else pack_text(message.person_id),
            joins=message.joins,
        )
        while True:
            with sound(), admitted():
                found, prefetched = await self._begins.answer(claim)
                if found["outcome"] == "unknown_person":
                    await self._database.execute("know_person", claim.person, claim.device_id, self._default_ttl)
                    continue
            try:
                with readable():
                    return answer_to(claim, found, self._heads_of(claim, found, prefetched, cached))
            except StateDamaged:
                if not await self._put_back(claim, found):
                    raise

    async def _put_back(self, claim: Claim, found: dict[str, Any]) -> bool:
        """Puts the messages of a turn that cannot be read, and that another process left, back into the queue, where
        they wait to be recovered and hold up nothing. False if the answer is no such turn."""
        ids = [message["id"] for message in found.get("messages", ())]
        conversation = conversation_in(claim, found)
        own = claim.message_id and stored_id(found.get("address"), claim.message_id)
        if found["outcome"] != "claimed" or (own is not None and (not ids or own in ids)):
            return False
        first, failure = ids[0] if ids else "", StateDamaged.__name__
        with sound():
            await self._database.fetchval(
                *("release", conversation, claim.claim_id, first, None, True, False, failure, MAX_ATTEMPTS, None)
            )
        return True

    async def begin_orphaned(self, device_id: str) -> OpenTurn | None:
        """Claims what a crashed process left behind on the device: its turn, or a message that waited there."""
        claim_id = uuid4()
        cached = self._heads.get(device_id)
        claim = Claim(device_id, None, claim_id, None, None, None, "wait", json.dumps(cached.ids()))
        with sound():
            found, prefetched = await self._begins.answer(claim)
        try:
            with readable():
                if found["outcome"] != "claimed":
                    return None
                return turn_in(claim, found, self._heads_of(claim, found, prefetched, cached))
        except StateDamaged:
            await self._put_back(claim, found)
            raise

    async def orphaned(self) -> list[str]:
        """Devices on which a crashed process may have left something behind."""
        return [unpack_text(row["device_id"]) for row in await self._database.fetch("orphaned")]

    async def dead_letters(self) -> list[DeadLetter]:
        """Messages that were set aside, newest first."""
        return [
            DeadLetter(
                device_id=unpack_text(row["device_id"]),
                message_id=unpack_text(row["message_id"]),
                attempts=row["attempts"],
                error=row["error"],
                received_at=row["received_at"],
            )
            for row in await self._database.fetch("dead_letters")
        ]

    async def requeue(self, device_id: str, message_id: str) -> IncomingMessage | None:
        """Puts a message that was set aside, or whose caller was told of its failure, at the end of the queue, together
        with those it was merged with. None if there is no such message."""
        row = await self._database.fetchrow("requeue", device_id, pack_text(message_id))
        if row is None:
            return None
        text, files = unpack_message(row["message_text"])
        return IncomingMessage(
            device_id=device_id,
            message_id=message_id,
            text=text,
            files=files,
            resume=resume_in(load_json(row["message_resume"] or "null")),
            values=load_json(row["message_values"]),
            on_busy="wait",
        )

    async def withdraw(self, message: IncomingMessage, *, claim_id: UUID) -> bool:
        """Gives up the message's place in the queue, and a turn that the claim won although its answer was lost. A
        message that ran before stays stored until it is delivered again. Returns whether an earlier attempt has effects
        that stand."""
        return bool(
            await self._database.fetchval("withdraw", message.device_id, pack_text(message.message_id), claim_id)
        )

    async def commit(self, turn: OpenTurn, record: TurnRecord) -> None:
        """Writes state, lock, reply and statuses together. Raises `StaleTurn`, and writes nothing, if the claim no
        longer stands. Called again for a committed turn, it answers the same.

        A lock that somebody else set or cleared since the claim stays as it is; the turn's own is dropped."""
        if record.interrupt is None:
            turn.drop_transient_state()
        turn.facts.over = True
        try:
            done, ended = await self._commits.answer(Outcome(turn, outcome_of(turn, record)))
        finally:  # what has no answer may be committed
            self._database.lock_changed(turn.device_id)
            if self._heads.conversation(turn.sender) != turn.device_id:  # it has joined since its last turn here
                self._database.lock_changed(turn.sender)
        if done == "stale":
            self.forget(turn.device_id)
            raise stale(self._database, turn)
        self._heads.put(turn)
        tell_ended(self._database, ended)
        if done == "committed" and turn.active_agent != turn.holder:
            await log_lock(self._database, turn.device_id, turn.active_agent)

    async def release(
        self,
        turn: OpenTurn,
        *,
        notify: str | None,
        failure: str,
        give_back: bool,
        forget: bool = False,
        spent: Mapping[str, Any] | None = None,
    ) -> bool:
        """Ends a turn that failed, so that the device goes on at once; none of its state is kept. Returns whether it
        has effects that stand.

        Its messages wait for their next delivery; those whose caller is not told of the failure (all but `notify`) can
        also be recovered. The failure counts as an attempt unless `give_back`; after `MAX_ATTEMPTS` they are set aside.
        With `forget` they are removed instead, as if they had never come. `spent` is the usage of all attempts that
        failed, this one included, which the next attempt finds in its turn.
        """
        return bool(
            await self._database.fetchval(
                "release",
                turn.device_id,
                turn.claim_id,
                pack_text(turn.stored_id(turn.messages[0].id)),
                None if notify is None else pack_text(turn.stored_id(notify)),
                give_back,
                forget,
                failure,
                MAX_ATTEMPTS,
                None if spent is None else pack_json(spent),
            )
        )

    async def abandon(self, turn: OpenTurn, *, give_back: bool) -> None:
        """Leaves a turn as if its process had just died: the next claim of the device finishes it first.

        The run counts as an attempt unless `give_back`.
        """
        await self._database.execute("abandon", turn.device_id, turn.claim_id, give_back)

    def forget(self, device_id: str) -> None:
        """Drops what this process has cached of a device."""
        self._heads.forget(device_id)

    async def heartbeat(self, turn: OpenTurn) -> bool:
        """Renews the lease. Returns False if another process has claimed the device since: the turn is stale.

        If a transaction of the turn holds the row, it waits for that to end: until then nobody can claim the device,
        and the statement would wait while holding a connection.
        """
        await turn.row_free.wait()
        return bool(await self._database.fetchval("heartbeat", turn.device_id, turn.claim_id, LEASE_SECONDS))

    def transaction(self, turn: OpenTurn) -> AbstractAsyncContextManager[TurnTransaction]:
        """See `turn_transaction`. For the journal only: tools use `tool_transaction`, which has a deadline."""
        return turn_transaction(self._database, turn)

    def tool_transaction(self, turn: OpenTurn) -> AbstractAsyncContextManager[ToolTransaction]:
        """See `tool_transaction`: for a tool whose statements commit together with its result."""
        return tool_transaction(self._database, turn)

    def block(self, turn: OpenTurn) -> AbstractAsyncContextManager[ToolConnection]:
        """See `own_block`: for any other code of the turn's agents."""
        return own_block(self._database, turn)

    async def pending(self, device_id: str) -> Mapping[str, Any] | None:
        """`id` and `value` of the device's interrupt, if it waits for an answer."""
        found = await self._database.fetchval("pending", device_id)
        return None if found is None else cast("Mapping[str, Any]", load_json(found))

    async def question(self, turn: OpenTurn) -> AskedQuestion | None:
        """What the turn before this one asked, if it was not closed meanwhile."""
        own = pack_text(turn.stored_id(turn.messages[0].id))
        row = await self._database.fetchrow("question", turn.device_id, turn.turn_no - 1, own)
        return None if row is None else question_in(row)

    async def cancel(self, device_id: str) -> bool:
        """Closes the device's interrupt: nothing can answer it any more. Returns whether one was waiting, which one
        that an open turn is about to answer, or to close, is not."""
        return bool(await self._database.fetchval("cancel", device_id))

    async def stop(self, device_id: str, message_id: str) -> tuple[str, str] | None:
        """Marks the message as stopped, if it waits or runs, and returns its conversation and the ID that it has there.
        A message that was answered, or whose caller learned of its failure, is left alone."""
        row = await self._database.fetchrow("stop", device_id, pack_text(message_id))
        return None if row is None else (unpack_text(row["device_id"]), unpack_text(row["message_id"]))

    async def stopped(self, messages: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the messages, each with its conversation and the ID that it has there, that are marked as
        stopped."""
        devices, ids = [device_id for device_id, _ in messages], [pack_text(own) for _, own in messages]
        rows = await self._database.fetch("stopped", devices, ids)
        return [(unpack_text(row["device_id"]), unpack_text(row["message_id"])) for row in rows]

    async def known(self, device_id: str) -> bool:
        """Whether anything of the device is stored: its state, messages, turns, or checkpoints of a graph."""
        return bool(await self._database.fetchval("known", device_id))

    async def transcript(
        self,
        device_id: str,
        *,
        before: int | None = None,
        limit: int | None = None,
        own: bool = False,
        rewound: bool = True,
    ) -> Transcript:
        """The committed turns of the device's conversation, oldest first: all of them, or the last `limit` of those
        before the turn `before`. With `own` those of its own conversation, unless that is somebody else's by now.
        Without `rewound`, turns that were rewound do not count."""
        rows = await self._database.fetch("transcript", device_id, before, limit, own, rewound)
        with readable():
            return Transcript(entry_in(dict(row)) for row in rows)

    async def _begin_all(self, claims: Sequence[Claim], within: float | None) -> list[Claimed | None]:
        records = await self._database.fetch(
            "begin",
            *columns(Claim, claims),
            self._worker,
            self._default_ttl,
            LEASE_SECONDS,
            WAITER_SECONDS,
            MAX_ATTEMPTS,
            self._queue_max,
            within=within,
        )
        found = {record["place"]: Claimed(parsed(record["answer"]), {}) for record in records}
        with readable():
            for record in records:
                if record["checkpoint_id"] is not None:
                    rows = head_rows(record)
                    found[record["place"]].prefetched[rows.head.checkpoint.ns] = rows
        answers = (found[place] for place in range(1, len(claims) + 1))
        return [None if answer.answer["outcome"] == "locked" else answer for answer in answers]

    async def _commit_all(self, outcomes: Sequence[Outcome], within: float | None) -> list[Committed | None]:
        turns = [turn for turn, _ in outcomes]
        records = await self._database.fetch(
            "commit",
            [turn.device_id for turn in turns],
            [turn.claim_id for turn in turns],
            [turn.fence for turn in turns],
            [outcome for _, outcome in outcomes],
            self._keep_turns,
            *placed_columns(CheckpointRow, (turn.checkpoints.values() for turn in turns)),
            *placed_columns(ValueRow, (turn.channel_values.values() for turn in turns)),
            *placed_columns(WriteRow, (turn.all_writes() for turn in turns)),
            within=within,
        )
        found = {record["place"]: Committed(record["outcome"], record["ended"]) for record in records}
        answers = (found[place] for place in range(1, len(outcomes) + 1))
        return [None if answer.outcome == "locked" else answer for answer in answers]

    def _heads_of(
        self, claim: Claim, found: dict[str, Any], prefetched: dict[str, HeadRows], cached: CachedHeads
    ) -> Mapping[str, HeadRows]:
        """The heads that a claimed turn starts from: those that came with the claim, and those that were cached when it
        was made, as far as they are still the device's heads."""
        if found["outcome"] != "claimed":
            return prefetched
        if found["fence"] < cached.fence:  # the device was erased, or its database fell back, since they were cached
            self.forget(conversation_in(claim, found))
            return prefetched
        return prefetched | cached.that_are(found["heads"])
