"""Figures equal a count by hand over what was said, before, while and after cleanups roll turns up."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import quantiles
from typing import Any

import pytest

from moorline import Agent, Moorline, Settings
from moorline.errors import ConfigurationError
from moorline.events import Event, SessionChanged
from moorline.prices import Price
from moorline.stats import Stats
from moorline_agents.control import END_SESSION, HAND_OVER, ROUTE
from moorline_agents.messages import Usage
from moorline_agents.model import ChatModel
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from moorline_checkpoint.transcripts import TranscriptEntry
from tests.turns.runtimes import execute


@pytest.fixture(autouse=True)
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked again within a second comes from the database here, not from memory."""
    monkeypatch.setattr("moorline_checkpoint.recent.WITHIN", 0.0)


TALKS = {
    "ann": ["hair please", "and then?", "bye"],
    "ben": ["hair please", "nails instead", "bye", "hair again"],
    "cem": ["nails please", "start over", "nails please"],
    "dot": ["hair please", "bye", "hair please", "nails instead", "hair instead", "wait"],
}
AGO = {"ann": 3, "ben": 1, "cem": 0, "dot": 0}
"""Days since the conversation was."""

OLDER = """
UPDATE conversation_states SET locked_at = locked_at - $2::interval, last_active_at = last_active_at - $2::interval
    WHERE device_id = $1;
UPDATE conversation_turns SET committed_at = committed_at - $2::interval WHERE device_id = $1;
UPDATE conversation_sessions SET locked_at = locked_at - $2::interval, ended_at = ended_at - $2::interval
    WHERE device_id = $1
"""
PRICES = {
    "gpt-4.1-mini": Price(input=Decimal("0.4"), output=Decimal("1.6")),
    "large": Price(input=Decimal(10), output=Decimal(40), currency="EUR"),
}


def rules(request: ModelRequest) -> ModelReply:
    """`hair …` and `nails …` go to that agent, `bye` ends the session. Each answer costs tokens."""
    said = request.said[-1]
    verb, usage = said.split()[0], Usage(100 + len(said), 10)
    if ROUTE in request.functions:
        return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": verb}),), usage=usage)
    if request.messages[-1]["role"] == "tool":
        return ModelReply(text="bye", usage=usage)
    if verb == "bye":
        return ModelReply(calls=(Call(name=END_SESSION),), usage=usage)
    if verb in ("hair", "nails") and verb != request.system.split()[0]:
        return ModelReply(calls=(Call(name=HAND_OVER, arguments={"agent": verb, "reason": "asked"}),), usage=usage)
    return ModelReply(text="yes", usage=usage)


class Changes:
    """The changes of sessions, by device and turn."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], list[SessionChanged]] = defaultdict(list)

    async def __call__(self, event: Event) -> None:
        if isinstance(event, SessionChanged):
            self.seen[event.device_id, event.turn_no].append(event)


def team(dsn: str, changes: Changes, **settings: Any) -> Moorline:
    client = rule_client(rules)
    large = ChatModel(client=client, model="large", timeout=30)
    return Moorline(
        Settings(database_url=dsn, prices=PRICES, **{"default_session_ttl": 1_000_000, **settings}),
        agents=[
            Agent(name="hair", description="hair", instructions="hair"),
            Agent(name="nails", description="nails", instructions="nails", model=large),
        ],
        client=lambda: rule_client(rules),
        observers=[changes],
    )


async def talked(dsn: str, moorline: Moorline) -> dict[str, list[TranscriptEntry]]:
    """Has the conversations, moves them into the past, and returns what the transcripts say of them."""
    for device, texts in TALKS.items():
        for number, text in enumerate(texts):
            await moorline.run(text, {"device_id": device, "message_id": f"m{number}"})
        for statement in OLDER.split(";"):
            await execute(dsn, statement, device, timedelta(days=AGO[device]))
    return {device: await moorline.transcript(device) for device in TALKS}


class ByHand:
    """The same figures, counted here from transcripts and from what was told of sessions."""

    def __init__(self, transcripts: dict[str, list[TranscriptEntry]], changes: Changes, since: datetime) -> None:
        self.turns: Counter[tuple[date, str | None]] = Counter()
        self.people: dict[tuple[date, str | None], set[str]] = defaultdict(set)
        self.people_by_day: dict[date, set[str]] = defaultdict(set)
        self.tokens: Counter[tuple[date, str, str]] = Counter()
        self.started: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.lasted: list[float] = []
        for device, entries in transcripts.items():
            held: tuple[str, datetime] | None = None
            for entry in entries:
                day = entry.committed_at.astimezone(UTC).date()
                if entry.committed_at >= since:
                    self.turns[day, entry.record.agent] += 1
                    self.people[day, entry.record.agent].add(device)
                    self.people_by_day[day].add(device)
                    spending = entry.record.usage
                    assert isinstance(spending, Usage)
                    for model, usage in spending.by_model.items():
                        for agent, spent in usage.by_agent.items():
                            self.tokens[day, agent, model] += spent.prompt_tokens * 1000 + spent.completion_tokens
                for change in changes.seen[device, entry.record.turn_no]:
                    if change.lock is not None:
                        held = (change.lock, entry.committed_at)
                        self.started[change.lock] += entry.committed_at >= since
                    elif held is not None:
                        self.ended[held[0], change.why] += entry.committed_at >= since
                        if entry.committed_at >= since:
                            self.lasted.append((entry.committed_at - held[1]).total_seconds())
                        held = None


def agrees(stats: Stats, hand: ByHand) -> None:
    found = stats.figures
    assert {(each.day, each.agent): each.turns for each in found.turns} == hand.turns
    assert {(each.day, each.agent): each.people for each in found.turns} == {k: len(v) for k, v in hand.people.items()}
    assert {each.day: each.people for each in found.days} == {day: len(who) for day, who in hand.people_by_day.items()}
    assert sum(each.turns for each in found.days) == hand.turns.total()
    tokens = {
        (each.day, each.agent, each.model): each.input_tokens * 1000 + each.output_tokens for each in found.tokens
    }
    assert tokens == hand.tokens
    assert found.sessions.started == hand.started.total()
    assert +Counter(dict(found.sessions.ended)) == _by(hand.ended, lambda key: key[1])
    for agent, sessions in found.sessions_by_agent.items():
        assert sessions.started == hand.started[agent]
        assert sum(sessions.ended.values()) == _by(hand.ended, lambda key: key[0])[agent]
    if len(hand.lasted) > 1:
        cuts = quantiles(hand.lasted, n=20, method="inclusive")
        assert (found.sessions.p50, found.sessions.p95) == pytest.approx((cuts[9], cuts[18]), abs=1e-5)


def _by(ended: Counter[tuple[str, str]], key: Callable[[tuple[str, str]], str]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for whose, count in ended.items():
        counted[key(whose)] += count
    return +counted


async def test_figures_equal_a_count_by_hand_whatever_is_rolled_up(dsn: str) -> None:
    changes = Changes()
    async with team(dsn, changes) as moorline:
        transcripts = await talked(dsn, moorline)
        assert moorline._opened is not None
        for watch in moorline._opened.observers._watches:
            await watch.close()
        now = datetime.now(UTC)

        async def all_agree() -> None:
            for days in (0, 1, 7):
                stats = await moorline.stats(since=timedelta(days=days))
                since = datetime(*(now - timedelta(days=days)).timetuple()[:3], tzinfo=UTC)
                assert stats.figures.since == since
                agrees(stats, ByHand(transcripts, changes, since))

        await all_agree()
        assert await moorline.clean_up() is not None
        assert (await execute(dsn, "SELECT count(*) FROM conversation_days"))[0]["count"] > 0
        await all_agree()
        assert await moorline.clean_up() is not None
        await all_agree()
        # Of the same day and device some turns are rolled up and others are not.
        middle = transcripts["dot"][3].committed_at
        await execute(dsn, "UPDATE moorline_cleanups SET rolled_up_to = $1", middle)
        await execute(dsn, "SELECT moorline_recount(device_id) FROM conversation_states")
        await all_agree()


async def test_an_erased_device_is_in_no_figure_and_a_recount_changes_nothing(dsn: str) -> None:
    changes = Changes()
    async with team(dsn, changes) as moorline:
        await talked(dsn, moorline)
        await moorline.clean_up()
        before = (await moorline.stats(since="7d")).figures
        for device in TALKS:
            await execute(dsn, "SELECT moorline_recount($1)", device)
        after = (await moorline.stats(since="7d")).figures
        assert (after.turns, after.tokens, after.days) == (before.turns, before.tokens, before.days)
        for device in TALKS:
            await moorline.erase(device)
        nothing = (await moorline.stats(since="7d")).figures
        assert (nothing.turns, nothing.tokens, nothing.days, nothing.sessions.started) == ((), (), (), 0)
        assert await execute(dsn, "SELECT FROM conversation_days") == []
        assert await execute(dsn, "SELECT FROM conversation_sessions") == []


async def test_tokens_are_money_by_the_price_of_their_model_and_others_are_named(dsn: str) -> None:
    changes = Changes()
    async with team(dsn, changes) as moorline:
        await talked(dsn, moorline)
        stats = await moorline.stats(since="7d")
        cheap = [each for each in stats.figures.tokens if each.model == "gpt-4.1-mini"]
        input_tokens, output_tokens = sum(t.input_tokens for t in cheap), sum(t.output_tokens for t in cheap)
        assert stats.totals["USD"] == (input_tokens * Decimal("0.4") + output_tokens * Decimal("1.6")) / 1_000_000
        assert stats.totals["EUR"] > 0
        assert {(each.day, each.agent, each.model) for each in stats.costs} == {
            (each.day, each.agent, each.model) for each in stats.figures.tokens
        }
        assert "EUR" in stats.to_text()
        told = json.loads(json.dumps(stats.to_json()))
        assert told["totals"]["USD"] == f"{stats.totals['USD']:f}"
        assert told["unpriced"] == []
    async with Moorline(Settings(database_url=dsn), agents=[Agent(name="a", description="a", instructions="a")]) as m:
        poor = await m.stats(since="7d")
        assert (poor.costs, poor.totals, poor.unpriced) == ((), {}, ("gpt-4.1-mini", "large"))
        assert "Without a price in MOORLINE_PRICES: gpt-4.1-mini, large" in poor.to_text()


async def test_a_lock_that_has_expired_counts_as_ended_before_a_cleanup_and_after(dsn: str) -> None:
    async with team(dsn, Changes(), default_session_ttl=60) as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        live = (await moorline.stats(since="1d")).figures.sessions
        assert (live.started, sum(live.ended.values()), live.p50) == (1, 0, None)
        for statement in OLDER.split(";"):
            await execute(dsn, statement, "d1", timedelta(seconds=100))
        unswept = (await moorline.stats(since="2d")).figures.sessions
        assert (unswept.started, unswept.ended["expired"]) == (1, 1)
        assert unswept.p50 == pytest.approx(60)
        await moorline.clean_up()
        assert (await moorline.stats(since="2d")).figures.sessions == unswept


async def test_usage_that_no_server_could_mean_is_not_counted(dsn: str) -> None:
    strange = ['{"m": [-5, 1e30]}', '{"m": {"a": "x", "b": [1]}}', '{"m": 7, "n": null}', "[]", '{"m": {"a": [3, 4]}}']
    for number, usage in enumerate(strange):
        await execute(
            dsn,
            "INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, agent, reply, usage, status,"
            " attempts, started_at, committed_at) VALUES ('d1', $1, gen_random_uuid(), 1, 'a', '', $2, 'done', 1,"
            " now(), now() - interval '3 hours')",
            number,
            usage,
        )
    async with team(dsn, Changes()) as moorline:
        for _ in range(2):
            found = (await moorline.stats(since="2d")).figures
            assert sum(each.turns for each in found.turns) == len(strange)
            assert sum(each.input_tokens for each in found.tokens) == 3 + 1
            assert sum(each.output_tokens for each in found.tokens) == 4
            await moorline.clean_up()


@pytest.mark.parametrize(
    "since",
    ["", "soon", "7", "7 days", "-1d", "99999999d", "2026-13-01", "3000-01-01", "1d2h", 7, b"7d", timedelta(days=-1)],
)
async def test_a_time_that_nobody_can_read_is_refused(dsn: str, since: Any) -> None:
    async with team(dsn, Changes()) as moorline:
        with pytest.raises(ConfigurationError, match="such as 7d, 12h or 2w, or since a date"):
            await moorline.stats(since=since)


async def test_a_time_may_be_a_span_a_date_or_a_moment(dsn: str) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    times: Iterable[tuple[Any, datetime]] = [
        ("2w", midnight - timedelta(days=14)),
        (" 1d ", midnight - timedelta(days=1)),
        (timedelta(days=1), midnight - timedelta(days=1)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        (date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T00:30:00+02:00", datetime(2026, 1, 30, tzinfo=UTC)),
    ]
    async with team(dsn, Changes()) as moorline:
        for given, since in times:
            assert (await moorline.stats(since=given)).figures.since == since


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        ("{", "must look like"),
        ("[]", "must look like"),
        ("7", "must look like"),
        ('{"m": 7}', "m: "),
        ('{"m": {"input": 1}}', "m: output: Field required"),
        ('{"m": {"input": -1, "output": 1}}', "m: input: "),
        ('{"m": {"input": NaN, "output": 1}}', "m: input: "),
        ('{"m": {"input": 1, "output": 1, "currency": "$"}}', "m: currency: "),
        ('{"m": {"input": 1, "output": 1, "cached": 1}}', "m: cached: "),
        ('{"a":' * 20_000, "must look like"),
    ],
)
def test_a_price_table_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch, prices: str, told: str) -> None:
    monkeypatch.setenv("MOORLINE_PRICES", prices)
    with pytest.raises(ConfigurationError, match="MOORLINE_PRICES: ") as refused:
        Settings()
    assert told in str(refused.value)


def test_prices_are_read_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORLINE_PRICES", '{"m": {"input": 0.1, "output": 0.3, "currency": "EUR"}}')
    price = Settings().prices["m"]
    assert (price.of(3, 1), price.currency) == (Decimal("0.0000006"), "EUR")
