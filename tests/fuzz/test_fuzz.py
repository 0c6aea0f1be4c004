"""Whatever a person, a device, a model or a row holds: what leaves the public face is a reply or an error of ours, and
another device is answered all the same.

A few hundred examples each time; thousands in the laboratory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorline import MoorlineError, Reply
from moorline_agents.transport import ModelRequest, RawReply
from tests.agents.model.streams import known_answers, streamed

from . import hostile
from .world import World, polite, world

MANY = pytest.mark.parametrize("examples", [60, pytest.param(2_500, marks=pytest.mark.laboratory)])

TABLES = ("states", "messages", "turns", "checkpoints", "values", "writes", "effects")
COLUMNS = (
    "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns WHERE table_schema ="
    " 'public' AND table_name = ANY ($1) AND column_name <> 'device_id' AND is_generated = 'NEVER' ORDER BY 1, 2"
)


def checked(examples: int, **strategies: Any) -> Callable[[Callable[..., None]], None]:
    """Runs the decorated check with so many examples, the same ones each time unless there are thousands."""

    def run(check: Callable[..., None]) -> None:
        few = examples < 1_000
        profile = settings(
            max_examples=examples,
            deadline=None,
            derandomize=few,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        profile(given(**strategies)(check))()

    return run


def unharmed(fuzzed: World) -> None:
    """Another device is answered."""
    said = fuzzed.do(lambda: fuzzed.moorline.run("hello", {"device_id": "innocent"}))
    assert isinstance(said, Reply), repr(said)


@MANY
def test_messages_and_contexts(dsn: str, examples: int) -> None:
    with world(dsn) as fuzzed:

        @checked(examples, message=hostile.messages, context=hostile.contexts())
        def check(message: Any, context: Any) -> None:
            said = fuzzed.do(partial(fuzzed.moorline.run, hostile.real(message), hostile.real(context)))
            assert isinstance(said, Reply | MoorlineError)

        unharmed(fuzzed)


@MANY
def test_ids_of_devices_and_messages(dsn: str, examples: int) -> None:
    with world(dsn) as fuzzed:
        moorline = fuzzed.moorline

        @checked(examples, device=hostile.ids, message=hostile.ids)
        def check(device: Any, message: Any) -> None:
            device, message = hostile.real(device), hostile.real(message)
            for use in (moorline.session, moorline.transcript, moorline.known, moorline.pending, moorline.device_tag):
                fuzzed.do(partial(use, device))
            fuzzed.do(lambda: moorline.requeue(device, message))
            fuzzed.do(lambda: moorline.cancel(device))
            fuzzed.do(lambda: moorline.erase(device))

        unharmed(fuzzed)


@st.composite
def streams(draw: st.DrawFn) -> RawReply:
    """What a server streams, known answers with something wrong in one place, or noise."""
    if draw(st.integers(0, 9)) == 0:
        return RawReply(pieces=tuple(draw(st.lists(st.binary(max_size=60), max_size=4))), headers=EVENTS)
    seed = draw(st.integers(0, 10_000))
    chunks: list[Any] = streamed(ANSWERS[seed % len(ANSWERS)], Random(seed))  # noqa: S311 - a test
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, len(chunks) - 1))
        chunks[where] = _mutated(draw, chunks[where])
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    cut = draw(st.integers(0, len(text))) if draw(st.integers(0, 4)) == 0 else len(text)
    return RawReply(pieces=(text[:cut].encode(),), headers=EVENTS)


EVENTS = {"content-type": "text/event-stream"}
ANSWERS = known_answers(50)
REPLACED = st.one_of(hostile.json_values, st.sampled_from([0, 64, 600]).map(hostile.Nested))


def _mutated(draw: st.DrawFn, value: Any) -> Any:
    """The value with something else in one place of it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: _mutated(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _mutated(draw, value[place]), *value[place + 1 :]]
    replaced = hostile.real(draw(REPLACED))
    try:
        json.dumps(replaced)
    except ValueError:  # a number with too many digits
        return None
    return replaced


@MANY
def test_streams_of_models(dsn: str, examples: int) -> None:
    answer: list[RawReply] = []

    def rules(request: ModelRequest) -> Any:
        return answer.pop() if answer else polite(request)

    with world(dsn, rules) as fuzzed:
        numbers = count()

        @checked(examples, stream=streams())
        def check(stream: RawReply) -> None:
            answer[:] = [stream]
            context = {"device_id": f"d{next(numbers) % 5}"}
            said = fuzzed.do(lambda: fuzzed.moorline.run("hello", context))
            assert isinstance(said, Reply | MoorlineError)

        answer.clear()
        unharmed(fuzzed)
        for number in range(5):
            said = fuzzed.do(partial(fuzzed.moorline.run, "hello", {"device_id": f"d{number}"}))
            assert isinstance(said, Reply), repr(said)


class Cell(NamedTuple):
    """A column of a table, and its type."""

    table: str
    column: str
    kind: str


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "jsonb": hostile.json_values,
    "bytea": st.one_of(
        st.binary(max_size=40), st.sampled_from([b"\x91" * 3000 + b"\xc0", b"\xc1", b"\x80", b"\x93\1\2\3"])
    ),
    "text": hostile.anything_in_text,
    "character varying": hostile.anything_in_text,
    "uuid": st.uuids().map(str),
    "bigint": st.sampled_from(["-9223372036854775808", "9223372036854775807", "0", "-1"]),
    "integer": st.sampled_from(["-2147483648", "2147483647", "0", "-1"]),
    "boolean": st.sampled_from(["true", "false"]),
    "timestamp with time zone": st.sampled_from(
        ["infinity", "-infinity", "4713-01-01 BC", "2030-01-01", "294275-01-01"]
    ),
    "ARRAY": st.sampled_from(["{}", "{m1}", "{NULL}", '{"a b",c}']),
}


@MANY
def test_stored_rows(dsn: str, examples: int) -> None:
    with world(dsn) as fuzzed:
        moorline = fuzzed.moorline
        for number, text in enumerate(("hello", "order tea", "order cake", "and then")):
            context = {"device_id": "whole", "message_id": f"m{number}"}
            assert isinstance(fuzzed.do(partial(moorline.run, text, context)), Reply)
        fuzzed.sql(
            "INSERT INTO conversation_messages"
            " (device_id, message_id, arrival, text, status, attempts, error, waiter_until) VALUES"
            " ('whole', 'w', 5, 'waits', 'waiting', 1, 'x', clock_timestamp()),"
            " ('whole', 'x', 6, 'dead', 'dead', 3, 'x', NULL)"
        )
        tables = [f"conversation_{table}" for table in TABLES]
        cells = [Cell(*row) for row in fuzzed.sql(COLUMNS, tables)]
        names: dict[str, str] = {}
        for table, column, kind in cells:
            names[table] = f"{names[table]}, {column}" if table in names else column
            assert kind in KINDS, f"{table}.{column} is {kind}"
        numbers = count()

        @checked(examples, data=st.data())
        def check(data: st.DataObject) -> None:
            device = f"bad-{next(numbers)}"
            for table, columns in names.items():
                fuzzed.sql(
                    f"INSERT INTO {table} (device_id, {columns}) SELECT $1, {columns} FROM {table}"  # noqa: S608
                    " WHERE device_id = 'whole'",
                    device,
                )
            for _ in range(data.draw(st.integers(1, 3))):
                cell = data.draw(st.sampled_from(cells))
                _overwrite(fuzzed, device, cell, data.draw(st.none() | KINDS[cell.kind]))
            for use in (moorline.session, moorline.transcript, moorline.known, moorline.pending):
                fuzzed.do(partial(use, device))
            for message in ("m1", "w", "x", "new", "order more"):
                context = {"device_id": device, "message_id": message, "timeout": 5, "on_busy": "reject"}
                fuzzed.do(partial(moorline.run, "hello", context))
            fuzzed.do(lambda: moorline.requeue(device, "x"))
            fuzzed.do(moorline.dead_letters)
            fuzzed.do(moorline.recover)
            fuzzed.do(lambda: moorline.cancel(device))
            fuzzed.do(lambda: moorline.erase(device))
            unharmed(fuzzed)


def _overwrite(fuzzed: World, device: str, cell: Cell, value: Any) -> None:
    """Puts the value into a column of the device's rows, if PostgreSQL can store it there."""
    kind = "text[]" if cell.kind == "ARRAY" else cell.kind
    cast = "bytea" if kind == "bytea" else f"text::{kind}"
    update = f"UPDATE {cell.table} SET {cell.column} = $2::{cast} WHERE device_id = $1"  # noqa: S608
    with suppress(ValueError, asyncpg.PostgresError, asyncpg.DataError):
        stored = json.dumps(value, allow_nan=False) if kind == "jsonb" and value is not None else value
        fuzzed.sql(update, device, stored)
