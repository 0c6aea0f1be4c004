"""Checks of what else an installation depends on: the model server, Redis, a replica."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from moorline.cache.entries import READ
from moorline.cache.server import RedisServer
from moorline.doctor.case import Case, connected
from moorline.doctor.finding import Finding
from moorline.settings import Settings

MODEL_TIMEOUT = 10.0
"""Seconds."""

REDIS_TIMEOUT = 3.0
"""Seconds."""


async def model(settings: Settings) -> Finding:
    """Whether the model server takes the key and has the model. Nothing is generated."""
    if not settings.has_model:
        todo = "Set OPENAI_API_KEY or OPENAI_BASE_URL; people are answered by rules that only book appointments."
        return Finding("model", "warn", "the rehearsal model answers", todo)
    import openai  # noqa: PLC0415 - takes a second

    key, name = settings.openai_api_key, settings.openai_model
    client = openai.AsyncOpenAI(
        api_key=key.get_secret_value() if key else "none",
        base_url=settings.openai_base_url,
        max_retries=0,
        timeout=MODEL_TIMEOUT,
    )
    where = "OPENAI_BASE_URL" if settings.openai_base_url else "OpenAI"
    try:
        await client.models.retrieve(name)
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        seen = f"{where} refuses the key (status {error.status_code})"
        return Finding("model", "fail", seen, "Correct OPENAI_API_KEY.")
    except openai.NotFoundError:
        todo = "See if OPENAI_MODEL is right. Agents may name models of their own, and some servers list none."
        return Finding("model", "warn", f"{where} does not know the model {name!r}", todo)
    except openai.APIConnectionError as error:
        todo = "See if the server runs, and if this machine reaches it."
        return Finding("model", "fail", f"{where} cannot be reached ({type(error).__name__})", todo)
    except openai.OpenAIError as error:
        todo = "Send a message with `moorline chat`: some servers answer, but list no models."
        return Finding("model", "warn", f"{where} does not say if it has {name!r} ({type(error).__name__})", todo)
    finally:
        await client.close()
    return Finding("model", "ok", f"{where} takes the key and has {name!r}")


async def redis(settings: Settings) -> Finding:
    """Whether Redis does what is asked of it, and how it forgets."""
    if settings.redis_url is None:
        return Finding("Redis", "skipped", "MOORLINE_REDIS_URL is not set")
    server = RedisServer(settings.redis_url, instead="")
    client: Any = server.client
    try:
        async with asyncio.timeout(REDIS_TIMEOUT):
            await client.ping()
            began = time.perf_counter()
            await client.eval(READ, 2, "moorline:doctor", "moorline:doctor", 1)
            took = (time.perf_counter() - began) * 1000
            info = await client.info()
    except Exception as error:  # whatever the server may be
        todo = "See MOORLINE_REDIS_URL and docs/redis.md. Turns do not need it: readers ask PostgreSQL meanwhile."
        return Finding("Redis", "fail", f"it does not do what is asked ({type(error).__name__})", todo)
    finally:
        await server.close()
    seen = f"version {info['redis_version']}, answers in {took:.1f} ms"
    if info.get("maxmemory") and info.get("maxmemory_policy") == "noeviction":
        todo = (
            "Set maxmemory-policy to allkeys-lru: when it is full, nothing more is written, and readers ask PostgreSQL."
        )
        return Finding("Redis", "warn", f"{seen}; it forgets nothing when its memory is full", todo)
    return Finding("Redis", "ok", seen)


async def replica(case: Case) -> Finding:
    """Whether the replica would be read, and how far it is behind."""
    url, most = case.settings.replica_url, case.settings.replica_max_lag
    if url is None:
        return Finding("replica", "skipped", "MOORLINE_REPLICA_URL is not set")
    written = await case.value("written")
    async with connected(url) as connection:
        row = await connection.fetchrow(case.sql("replayed"), written)
    assert row is not None  # noqa: S101 - it has no FROM
    if not row["replica"]:
        todo = "Let MOORLINE_REPLICA_URL lead to a replica of DATABASE_URL's server."
        return Finding("replica", "warn", "it is no replica, but takes writes itself", todo)
    if row["key"] != await case.value("key"):
        todo = "Let MOORLINE_REPLICA_URL lead to a replica of DATABASE_URL's server; until then it is not read."
        return Finding("replica", "warn", "it is a copy of another database", todo)
    if row["bytes"] > 0 and row["seconds"] > most:
        todo = f"See pg_stat_replication on the primary. Up to {most:g} s it would be read (MOORLINE_REPLICA_MAX_LAG)."
        return Finding("replica", "warn", f"it is {row['seconds']:.0f} s and {row['bytes']:,} bytes behind", todo)
    return Finding("replica", "ok", f"it is {max(row['bytes'], 0):,} bytes behind")
