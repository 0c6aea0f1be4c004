"""`moorline doctor` finds each thing that can be wrong on a real one, says what to do, and changes nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
import respx
from pydantic import SecretStr

from moorline import Settings
from moorline.doctor import conversations, database, services
from moorline.doctor.examination import DATABASE, OTHERS, examine
from moorline.doctor.finding import Finding
from moorline.doctor.shown import as_json, as_lines, healthy
from moorline_migrations import SHIPPED
from tests.pgbouncer import needs_pgbouncer, pooled
from tests.redis_server import REDIS, running_redis
from tests.turns.runtimes import execute, runtime, say

MODELS = "https://models.example/v1/models/gpt-4.1-mini"


def settings(dsn: str | None, **others: Any) -> Settings:
    return Settings(database_url=dsn, **others)


async def finding(name: str, dsn: str, **others: Any) -> Finding:
    found = {each.name: each for each in await examine(settings(dsn, **others), SHIPPED)}
    assert set(found) == {"connection", *DATABASE, *OTHERS}
    assert all(each.todo for each in found.values() if each.state in ("warn", "fail"))
    return found[name]


async def test_all_is_well_on_a_fresh_database(dsn: str) -> None:
    found = await examine(settings(dsn), SHIPPED)
    assert healthy(found)
    states = {each.name: each.state for each in found}
    assert not [each for each in found if "could not be checked" in each.seen]
    assert states == dict.fromkeys(["connection", *DATABASE], "ok") | {
        "roles": "warn",  # the tests' superuser
        "replica": "skipped",
        "model": "warn",  # the rehearsal model
        "Redis": "skipped",
    }


async def test_it_changes_nothing(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")

    async def everything() -> list[list[Any]]:
        tables = await execute(dsn, "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
                                    "WHERE schemaname = 'public' ORDER BY 1")  # fmt: skip
        return [await execute(dsn, f"SELECT * FROM {row['name']} ORDER BY 1, 2") for row in tables]  # noqa: S608

    before = await everything()
    await examine(settings(dsn), SHIPPED)
    assert await everything() == before


async def test_a_database_that_is_not_there_is_said_and_what_needs_it_is_skipped() -> None:
    found = await examine(settings("postgresql://postgres@127.0.0.1:1/none"), SHIPPED)
    assert found[0].state == "fail"
    assert "127.0.0.1" in found[0].todo or "DATABASE_URL" in found[0].todo
    assert {each.state for each in found[1 : 1 + len(DATABASE)]} == {"skipped"}
    assert not healthy(found)


async def test_a_database_without_our_tables_says_what_to_run(empty_dsn: str) -> None:
    found = await finding("schema", empty_dsn)
    assert found.state == "fail"
    assert "moorline migrate" in found.todo


async def test_rights_that_lack_are_named(dsn: str) -> None:
    await execute(dsn, "DROP ROLE IF EXISTS doctors_patient")
    await execute(dsn, "CREATE ROLE doctors_patient LOGIN")
    try:
        await execute(dsn, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO doctors_patient")
        await execute(dsn, "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO doctors_patient")
        patient = urlsplit(dsn)._replace(netloc="doctors_patient@").geturl()
        has = await finding("rights", patient)
        assert has.state == "ok"
        assert int(re.findall(r"\d+", has.seen)[0]) > 80
        roles = await finding("roles", patient)
        assert (roles.state, roles.seen) == ("ok", "doctors_patient may not change the schema")
        await execute(dsn, "REVOKE DELETE ON conversation_effects FROM doctors_patient")
        await execute(dsn, "REVOKE EXECUTE ON FUNCTION moorline_commit FROM public")
        lacks = await finding("rights", patient)
        assert lacks.state == "fail"
        assert "DELETE on public.conversation_effects" in lacks.seen
        assert "EXECUTE on moorline_commit" in lacks.seen
        assert "grants.sql" in lacks.todo
    finally:
        await execute(dsn, "DROP OWNED BY doctors_patient")
        await execute(dsn, "DROP ROLE doctors_patient")


@pytest.fixture
def through(dsn: str) -> Iterator[str]:
    """The database through PgBouncer."""
    with pooled(dsn) as pooler:
        yield pooler


@needs_pgbouncer
async def test_a_pooler_and_its_mode_are_recognized_and_the_statement_cache_with_it(dsn: str, through: str) -> None:
    found = {each.name: each for each in await examine(settings(through), SHIPPED)}
    assert "transaction" in found["pooler"].seen
    # PgBouncer before 1.21 loses prepared statements, newer ones keep track of them.
    assert "the pooler" in found["statement cache"].seen
    if found["statement cache"].state == "fail":
        assert "MOORLINE_STATEMENT_CACHE_SIZE=0" in found["statement cache"].todo
    assert (await finding("statement cache", through, statement_cache_size=0)).state == "ok"
    assert (await finding("statement cache", dsn, statement_cache_size=0)).state == "warn"


async def test_clocks_that_differ_are_measured(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await finding("clock", dsn)).state == "ok"
    monkeypatch.setattr(database, "SKEW_WARNED", -1.0)
    assert (await finding("clock", dsn)).state == "warn"
    monkeypatch.setattr(database, "SKEW_FAILED", -1.0)
    assert (await finding("clock", dsn)).state == "fail"


async def test_a_zone_that_the_server_does_not_know_is_named(dsn: str) -> None:
    provider = "INSERT INTO appointment_providers (name, time_zone) VALUES ($1, $1)"
    await execute(dsn, provider, "Europe/Berlin")
    assert (await finding("time zones", dsn)).state == "ok"
    await execute(dsn, provider, "Moon/Tycho")
    found = await finding("time zones", dsn)
    assert (found.state, "Moon/Tycho" in found.seen, "Berlin" in found.seen) == ("fail", True, False)


async def test_what_is_left_behind_is_counted(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        await say(moorline, "hello", device="d2")
    await execute(dsn, "UPDATE conversation_states SET claim_id = gen_random_uuid(), claimed_at = now(), "
                       "lease_until = now() - interval '5 minutes' WHERE device_id = 'd1'")  # fmt: skip
    await execute(dsn, "UPDATE conversation_messages SET status = 'dead' WHERE device_id = 'd2'")
    hangs = await finding("leases", dsn)
    assert (hangs.state, hangs.seen.split()[0]) == ("warn", "1")
    assert "moorline recover" in hangs.todo
    dead = await finding("dead letters", dsn)
    assert (dead.state, dead.seen.split()[0]) == ("warn", "1")
    assert "moorline turns --dead" in dead.todo
    await execute(dsn, "UPDATE conversation_states SET last_active_at = now() - interval '9 days', "
                       "locked_at = now() - interval '9 days' WHERE device_id = 'd2'")  # fmt: skip
    monkeypatch.setattr(conversations, "MANY_EXPIRED", 0)
    assert "moorline cleanup" in (await finding("cleanup", dsn)).todo
    monkeypatch.undo()
    assert (await finding("cleanup", dsn)).state == "ok"
    await execute(dsn, "UPDATE conversation_turns SET committed_at = now() - interval '2 days'")
    assert "more than a day ago" in (await finding("cleanup", dsn)).seen


async def test_dead_rows_that_vacuum_leaves_are_counted(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await execute(dsn, "INSERT INTO moorline_revocations SELECT decode(md5(n::text), 'hex'), 1, now() "
                       "FROM generate_series(1, 500) n")  # fmt: skip
    await execute(dsn, "DELETE FROM moorline_revocations")
    await execute(dsn, "ANALYZE moorline_revocations")
    monkeypatch.setattr(conversations, "DEAD_ROWS", 100)
    found = await finding("bloat", dsn)
    assert (found.state, "moorline_revocations has 500" in found.seen) == ("warn", True)


async def test_a_transaction_that_stays_open_is_found(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN; SELECT 1")
        statements = Path(database.__file__).with_name("doctor.sql").read_text()
        sql = statements.split("-- name: long_transactions repeatable")[1].split("-- name:")[0]
        [row] = await execute(dsn, sql.replace("interval '1 minute'", "interval '0'"))
        assert row["transactions"] == 1
    finally:
        await connection.close()
    assert (await finding("transactions", dsn)).state == "ok"


@pytest.mark.parametrize(
    ("answer", "state", "todo"),
    [
        (httpx2.Response(200, json={"id": "gpt-4.1-mini", "object": "model", "created": 1, "owned_by": "x"}), "ok", ""),
        (httpx2.Response(401, json={"error": {"message": "no"}}), "fail", "OPENAI_API_KEY"),
        (httpx2.Response(404, json={"error": {"message": "no"}}), "warn", "OPENAI_MODEL"),
        (httpx2.Response(500), "warn", "moorline chat"),
        (httpx2.ConnectError("no"), "fail", "reaches"),
    ],
)
async def test_the_key_and_the_model_are_tried_without_generating_anything(answer: Any, state: str, todo: str) -> None:
    model = {"openai_base_url": "https://models.example/v1", "openai_api_key": SecretStr("hush")}
    with respx.mock(assert_all_called=True) as mock:
        asked = mock.get(MODELS)
        asked.side_effect = [answer]
        found = await services.model(settings("postgresql://h/n", **model))
    assert (found.state, todo in found.todo) == (state, True)
    assert "hush" not in f"{found}"


@pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
async def test_redis_is_tried() -> None:
    with running_redis(password="right") as redis:  # noqa: S106 - of a server that lives for a test
        assert (await services.redis(settings("postgresql://h/n", redis_url=redis.url))).state == "ok"
        with redis.client() as client:
            client.config_set("maxmemory", "100mb")
        full = await services.redis(settings("postgresql://h/n", redis_url=redis.url))
        assert (full.state, "allkeys-lru" in full.todo) == ("warn", True)
        wrong = await services.redis(settings("postgresql://h/n", redis_url=redis.url.replace("right", "wrong")))
        assert (wrong.state, "wrong" in f"{wrong}") == ("fail", False)
        assert "AuthenticationError" in wrong.seen
    gone = await services.redis(settings("postgresql://h/n", redis_url=redis.url))
    assert (gone.state, "docs/redis.md" in gone.todo) == ("fail", True)


async def test_a_check_that_cannot_run_says_so_and_the_others_run(dsn: str) -> None:
    await execute(dsn, "DROP VIEW expired_sessions")
    found = await examine(settings(dsn), SHIPPED)
    states = {each.name: each.state for each in found}
    assert states["cleanup"] == "warn"
    assert "could not be checked" in next(each.seen for each in found if each.name == "cleanup")
    assert states["bloat"] == "ok"


async def test_no_embedded_database_is_made(tmp_path: Path) -> None:
    found = await examine(settings(None, data=tmp_path / "none"), SHIPPED)
    assert (found[0].state, found[0].todo != "") == ("skipped", True)
    assert healthy(found)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - in an async test


def test_what_is_found_is_shown_in_lines_and_as_json() -> None:
    found = [Finding("schema", "fail", "old\x1b[31m", "run it"), Finding("Redis", "skipped", "unset")]
    assert as_lines(found)[1].strip() == "-> run it"
    assert "\x1b" not in "".join(as_lines(found))
    told = json.loads(as_json(found))
    assert (told["ok"], [each["state"] for each in told["checks"]]) == (False, ["fail", "skipped"])


def called(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not re.match("MOORLINE_|OPENAI_|DATABASE_URL", name)}
    command: Sequence[str] = [str(Path(sys.executable).with_name("moorline")), "doctor", *arguments]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=False)


def test_its_exit_status_is_for_deploys(dsn: str, empty_dsn: str) -> None:
    well = called("--json", DATABASE_URL=dsn)
    assert (well.returncode, json.loads(well.stdout)["ok"]) == (0, True), well.stderr
    ill = called(DATABASE_URL=empty_dsn)
    assert ill.returncode == 1
    assert re.search(r"^fail +schema ", ill.stdout, re.MULTILINE)
