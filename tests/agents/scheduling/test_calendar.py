"""The arithmetic of opening hours and local time, on ordinary days and on days when the clocks change."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest

from moorline_agents.scheduling.calendar import (
    GRID,
    HORIZON,
    Bookable,
    Opening,
    ProviderCalendar,
    Span,
    Unbookable,
    Visit,
    first_instant,
    instants_of,
    iso,
    last_instant,
    meant,
    spoken,
)

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = Bookable(now=NOW)
HALF_HOUR = timedelta(minutes=30)
SHORT = Visit(HALF_HOUR)
MINUTE = timedelta(minutes=1)

FORWARD = [
    pytest.param(BERLIN, date(2026, 3, 29), id="Berlin"),
    pytest.param(NEW_YORK, date(2026, 3, 8), id="New York"),
]
BACK = [
    pytest.param(BERLIN, date(2026, 10, 25), 2, id="Berlin"),
    pytest.param(NEW_YORK, date(2026, 11, 1), 1, id="New York"),
]


def calendar(
    zone: ZoneInfo = BERLIN,
    *openings: tuple[int, int],
    closures: frozenset[date] = frozenset(),
    busy: tuple[Span, ...] = (),
) -> ProviderCalendar:
    """Ana's calendar, with the same hours on every day; by default she never sleeps."""
    hours = openings or ((0, 24),)
    return ProviderCalendar(
        provider="Ana",
        zone=zone,
        openings=tuple(
            Opening(weekday=weekday, opens=opens * 60, closes=closes * 60)
            for weekday in range(1, 8)
            for opens, closes in hours
        ),
        closures=closures,
        seats=(busy,),
    )


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute)


def starts_on(ana: ProviderCalendar, day: date, length: timedelta = GRID, now: datetime = NOW) -> list[datetime]:
    since, until = (first_instant(at(d, 0), ana.zone) for d in (day, day + timedelta(days=1)))
    return list(ana.free_starts(visit=Visit(length), since=max(since, now), until=until))


def objection(
    ana: ProviderCalendar, wanted: datetime, length: timedelta = HALF_HOUR, now: datetime = NOW
) -> Unbookable:
    with pytest.raises(Unbookable) as raised:
        ana.start_of(wanted, visit=Visit(length), bookable=Bookable(now=now))
    return raised.value


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, date(2026, 3, 29), 23),
        (BERLIN, date(2026, 10, 25), 25),
        (BERLIN, date(2026, 6, 1), 24),
        (NEW_YORK, date(2026, 3, 8), 23),
        (NEW_YORK, date(2026, 11, 1), 25),
        (ZoneInfo("Australia/Lord_Howe"), date(2026, 4, 5), 24.5),
        (ZoneInfo("Asia/Kathmandu"), date(2026, 6, 1), 24),
    ],
)
def test_every_minute_of_a_day_is_found_again_by_its_local_time(zone: ZoneInfo, day: date, hours: float) -> None:
    instant, end = first_instant(at(day, 0), zone), first_instant(at(day + timedelta(days=1), 0), zone)
    assert end - instant == timedelta(hours=hours)
    shown: dict[datetime, int] = {}
    while instant < end:
        local = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        shown[local] = shown.get(local, 0) + 1
        assert instant in instants_of(local, zone)
        assert meant(datetime.fromisoformat(iso(instant, zone)), zone) == instant
        instant += MINUTE
    for minute in range(24 * 60):
        local = at(day, 0) + minute * MINUTE
        assert len(instants_of(local, zone)) == shown.get(local, 0)


@pytest.mark.parametrize(("zone", "day"), FORWARD)
def test_a_skipped_local_time_is_refused_and_the_search_goes_on_after_the_gap(zone: ZoneInfo, day: date) -> None:
    for minute in range(60):
        refused = objection(calendar(zone), at(day, 2, minute))
        assert f"02:{minute:02} on Sunday" in str(refused)
        assert f"does not exist in {zone.key}" in str(refused)
        assert refused.look_from is not None
        assert refused.look_from == instants_of(at(day, 3), zone)[0]
    assert calendar(zone).start_of(at(day, 3), visit=SHORT, bookable=SOON) == instants_of(at(day, 3), zone)[0]


@pytest.mark.parametrize("offset", ["+01:00", "+02:00"])
def test_an_offset_does_not_make_a_skipped_local_time_exist(offset: str) -> None:
    wanted = datetime.fromisoformat(f"2026-03-29T02:30{offset}")
    assert "does not exist" in str(objection(calendar(), wanted))


@pytest.mark.parametrize(("zone", "day"), FORWARD)
def test_the_day_with_a_gap_has_23_hours_and_no_start_in_the_gap(zone: ZoneInfo, day: date) -> None:
    starts = starts_on(calendar(zone), day)
    assert len(starts) == 23 * 4
    assert 2 not in {start.astimezone(zone).hour for start in starts}


@pytest.mark.parametrize(("zone", "day", "hour"), BACK)
def test_a_repeated_local_time_is_asked_back_with_both_offsets(zone: ZoneInfo, day: date, hour: int) -> None:
    refused = objection(calendar(zone), at(day, hour, 30))
    first, second = instants_of(at(day, hour, 30), zone)
    assert second - first == timedelta(hours=1)
    assert "happens twice" in str(refused)
    assert refused.reason == "repeated_hour"
    assert refused.instants == (first, second)
    assert refused.look_from is None


@pytest.mark.parametrize(("zone", "day", "hour"), BACK)
def test_a_repeated_local_time_with_its_offset_is_that_very_time(zone: ZoneInfo, day: date, hour: int) -> None:
    for instant in instants_of(at(day, hour, 30), zone):
        wanted = datetime.fromisoformat(iso(instant, zone))
        assert calendar(zone).start_of(wanted, visit=SHORT, bookable=SOON) == instant


@pytest.mark.parametrize(("zone", "day", "hour"), BACK)
def test_the_day_with_a_repeated_hour_has_25_hours(zone: ZoneInfo, day: date, hour: int) -> None:
    starts = starts_on(calendar(zone), day)
    assert len(starts) == 25 * 4
    assert sum(start.astimezone(zone).hour == hour for start in starts) == 8


def test_a_repeated_local_time_at_which_nobody_works_is_not_asked_back() -> None:
    refused = objection(calendar(BERLIN, (9, 17)), at(date(2026, 10, 25), 2, 30))
    assert "works 09:00 to 17:00" in str(refused)


def test_the_two_times_of_a_repeated_hour_are_said_apart() -> None:
    said = [spoken(instant, BERLIN) for instant in instants_of(at(date(2026, 10, 25), 2, 30), BERLIN)]
    assert said == ["Sunday 25 October 2026, 02:30 CEST", "Sunday 25 October 2026, 02:30 CET"]


@pytest.mark.parametrize("offset", ["+00:00", "+01:00", "-04:00"])
def test_an_offset_that_is_not_the_zones_own_is_refused_and_not_converted(offset: str) -> None:
    wanted = datetime.fromisoformat(f"2026-06-01T10:00{offset}")
    refused = objection(calendar(), wanted)
    assert "is not a local time of Europe/Berlin" in str(refused)


def test_an_appointment_over_the_change_of_clocks_keeps_its_length() -> None:
    ana = calendar(BERLIN, (0, 4))
    spring, autumn = date(2026, 3, 29), date(2026, 10, 25)
    two_hours = timedelta(hours=2)
    assert ana.start_of(at(spring, 1), visit=Visit(two_hours), bookable=SOON) + two_hours == first_instant(
        at(spring, 4), BERLIN
    )
    assert "are not within that" in str(objection(ana, at(spring, 1, 15), two_hours))
    assert ana.start_of(at(autumn, 1), visit=Visit(timedelta(hours=4)), bookable=SOON)


@pytest.mark.parametrize(
    ("day", "hours", "expected"),
    [
        (date(2026, 3, 29), (150, 240), ("03:00+0200", "03:45+0200", 4)),  # opens in the gap, so after it
        (date(2026, 3, 29), (60, 150), ("01:00+0100", "01:45+0100", 4)),  # closes in the gap, so when it begins
        (date(2026, 10, 25), (150, 240), ("02:30+0200", "03:45+0100", 10)),  # opens the first time
        (date(2026, 10, 25), (60, 150), ("01:00+0200", "02:15+0100", 10)),  # closes the second time
    ],
)
def test_hours_that_begin_or_end_where_clocks_are_changed(
    day: date, hours: tuple[int, int], expected: tuple[str, str, int]
) -> None:
    opening = Opening(weekday=7, opens=hours[0], closes=hours[1])
    ana = ProviderCalendar(provider="Ana", zone=BERLIN, openings=(opening,), closures=frozenset(), seats=((),))
    starts = [f"{start.astimezone(BERLIN):%H:%M%z}" for start in starts_on(ana, day)]
    assert (starts[0], starts[-1], len(starts)) == expected


def test_a_day_that_a_zone_skips_altogether_has_no_start() -> None:
    apia = ZoneInfo("Pacific/Apia")
    skipped = date(2011, 12, 30)
    now = datetime(2011, 12, 20, tzinfo=UTC)
    assert instants_of(at(skipped, 12), apia) == ()
    assert first_instant(at(skipped, 12), apia) == last_instant(at(skipped, 0), apia)
    assert starts_on(calendar(apia), skipped, now=now) == []
    assert "does not exist" in str(objection(calendar(apia), at(skipped, 12), now=now))


def test_the_past_is_refused_and_the_search_begins_now() -> None:
    now = datetime(2026, 6, 1, 10, 7, tzinfo=UTC)
    for wanted in (at(date(2026, 6, 1), 12), at(date(2026, 5, 31), 12), at(date(1, 1, 1), 0)):
        refused = objection(calendar(), wanted, now=now)
        assert "is in the past; it is now Monday 1 June 2026, 12:07" in str(refused)
        assert refused.look_from == now
    assert calendar().start_of(at(date(2026, 6, 1), 12, 15), visit=SHORT, bookable=Bookable(now=now))


def test_what_is_too_far_ahead_is_refused() -> None:
    for wanted in (at(date(2027, 1, 2), 12), at(date(2028, 1, 1), 12), at(date(9999, 12, 31), 23)):
        refused = objection(calendar(), wanted)
        assert "is too far ahead; the last day that can be booked is Friday 1 January 2027" in str(refused)
    last = at(date(2027, 1, 1), 0, 45)  # a year after now is 1:00 in Berlin
    assert calendar().start_of(last, visit=SHORT, bookable=SOON)
    assert "is too far ahead" in str(objection(calendar(), last + GRID))


@pytest.mark.parametrize("offset", ["+14:00", "-12:00"])
@pytest.mark.parametrize("year", ["0001-01-01T00:00", "9999-12-31T23:59"])
def test_the_ends_of_time_are_refused_too(year: str, offset: str) -> None:
    wanted = datetime.fromisoformat(year + offset)
    assert str(objection(calendar(), wanted))
    assert meant(wanted, BERLIN) is None


def test_closed_days_are_refused() -> None:
    christmas = date(2026, 12, 25)
    weekdays = ProviderCalendar(
        provider="Ana",
        zone=BERLIN,
        openings=(Opening(weekday=1, opens=540, closes=1020),),
        closures=frozenset(),
        seats=((),),
    )
    assert "Ana is closed on Sunday 7 June 2026." in str(objection(weekdays, at(date(2026, 6, 7), 10)))
    refused = objection(calendar(closures=frozenset({christmas})), at(christmas, 10))
    assert "Ana is closed on Friday 25 December 2026." in str(refused)
    assert starts_on(calendar(closures=frozenset({christmas})), christmas) == []


@pytest.mark.parametrize(("hour", "minute"), [(8, 45), (11, 45), (12, 0), (12, 45), (17, 45), (18, 0), (3, 0)])
def test_outside_the_hours_is_refused_and_says_them(hour: int, minute: int) -> None:
    ana = calendar(BERLIN, (9, 12), (13, 18))
    refused = objection(ana, at(date(2026, 6, 1), hour, minute))
    assert "Ana works 09:00 to 12:00 and 13:00 to 18:00 on Monday 1 June 2026" in str(refused)


@pytest.mark.parametrize(("hour", "minute"), [(9, 0), (11, 30), (13, 0), (17, 30)])
def test_the_edges_of_the_hours_can_be_booked(hour: int, minute: int) -> None:
    ana = calendar(BERLIN, (9, 12), (13, 18))
    assert ana.start_of(at(date(2026, 6, 1), hour, minute), visit=SHORT, bookable=SOON)


def test_a_start_off_the_grid_is_refused() -> None:
    assert "begin at :00, :15, :30 and :45, not at 10:07" in str(objection(calendar(), at(date(2026, 6, 1), 10, 7)))


def test_hours_that_begin_off_the_grid_are_used_from_the_next_point_of_it() -> None:
    ana = ProviderCalendar(
        provider="Ana",
        zone=BERLIN,
        openings=(Opening(weekday=1, opens=9 * 60 + 10, closes=10 * 60 + 5),),
        closures=frozenset(),
        seats=((),),
    )
    starts = starts_on(ana, date(2026, 6, 1))
    assert [f"{start.astimezone(BERLIN):%H:%M}" for start in starts] == ["09:15", "09:30", "09:45"]


def test_what_touches_another_appointment_is_free_and_what_overlaps_it_is_not() -> None:
    ten = first_instant(at(date(2026, 6, 1), 10), BERLIN)
    ana = calendar(busy=(Span(start=ten, end=ten + HALF_HOUR),))
    assert ana.start_of(at(date(2026, 6, 1), 9, 30), visit=SHORT, bookable=SOON)
    assert ana.start_of(at(date(2026, 6, 1), 10, 30), visit=SHORT, bookable=SOON)
    for minute in (45, 60, 75):
        refused = objection(ana, at(date(2026, 6, 1), 9) + minute * MINUTE)
        assert "with Ana is taken" in str(refused)
        assert refused.look_from == first_instant(at(date(2026, 6, 1), 9), BERLIN) + minute * MINUTE


@pytest.mark.parametrize("order", list(permutations((9, 10, 11))))
def test_appointments_may_be_added_in_any_order(order: tuple[int, ...]) -> None:
    ana = calendar(BERLIN, (9, 13))
    for hour in order:
        start = first_instant(at(date(2026, 6, 1), hour), BERLIN)
        ana = ana.with_busy(Span(start=start, end=start + timedelta(hours=1)))
    assert starts_on(ana, date(2026, 6, 1), timedelta(hours=1)) == [first_instant(at(date(2026, 6, 1), 12), BERLIN)]


@pytest.mark.parametrize("seed", range(40))
def test_exactly_the_free_starts_can_be_booked(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    zone = rng.choice([BERLIN, NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")])
    changes = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 25), date(2026, 11, 1)]
    first = rng.choice(changes) - timedelta(days=rng.randrange(3))
    since = first_instant(at(first, 0), zone)
    length = GRID * rng.randint(1, 8)
    edges = sorted(since + timedelta(minutes=5 * n) for n in rng.sample(range(3 * 288), 2 * rng.randrange(20)))
    ana = ProviderCalendar(
        provider="Ana",
        zone=zone,
        openings=tuple(
            Opening(weekday=rng.randint(1, 7), opens=opens, closes=rng.randint(opens + 1, 24 * 60))
            for opens in (rng.randrange(24 * 60) for _ in range(12))
        ),
        closures=frozenset({first + timedelta(days=rng.randrange(9))}),
        seats=(tuple(Span(start=start, end=end) for start, end in zip(edges[::2], edges[1::2], strict=True)),),
    )
    now = since + timedelta(minutes=rng.randrange(600))
    until = since + timedelta(days=3)
    free = set(ana.free_starts(visit=Visit(length), since=now, until=until))
    instant = since
    while instant < until:
        wanted = datetime.fromisoformat(iso(instant, zone))
        if instant in free:
            assert ana.start_of(wanted, visit=Visit(length), bookable=Bookable(now=now)) == instant
            assert not any(span.overlaps(Span(start=instant, end=instant + length)) for span in ana.seats[0])
        else:
            objection(ana, wanted, length, now)
        instant += timedelta(minutes=5)


def test_a_day_is_checked_where_the_provider_is() -> None:
    now = datetime(2026, 6, 1, 23, 0, tzinfo=UTC)  # the second of June in Berlin
    with pytest.raises(Unbookable, match="today is Tuesday 2 June 2026"):
        calendar(BERLIN).check_day(date(2026, 6, 1), bookable=Bookable(now=now))
    calendar(NEW_YORK).check_day(date(2026, 6, 1), bookable=Bookable(now=now))
    calendar(BERLIN).check_day((now + HORIZON).date(), bookable=Bookable(now=now))
    for day in ((now + HORIZON).date() + timedelta(days=2), date.max):
        with pytest.raises(Unbookable, match="too far ahead"):
            calendar(BERLIN).check_day(day, bookable=Bookable(now=now))


NIGHT = Opening(weekday=5, opens=22 * 60, closes=28 * 60)  # Friday 22:00 to Saturday 4:00


def by_night(*openings: Opening, closures: frozenset[date] = frozenset()) -> ProviderCalendar:
    return ProviderCalendar(provider="Ana", zone=BERLIN, openings=openings or (NIGHT,), closures=closures, seats=((),))


def test_hours_past_midnight_belong_to_the_day_on_which_they_begin() -> None:
    friday = date(2026, 6, 5)
    ana = by_night()
    for day, hour in ((friday, 22), (friday, 23), (date(2026, 6, 6), 0), (date(2026, 6, 6), 3)):
        assert ana.start_of(at(day, hour, 30), visit=SHORT, bookable=SOON)
    assert [f"{start.astimezone(BERLIN):%H:%M}" for start in starts_on(ana, friday, HALF_HOUR)][-1] == "23:45"
    assert [f"{start.astimezone(BERLIN):%H:%M}" for start in starts_on(ana, date(2026, 6, 6), HALF_HOUR)][-1] == "03:30"
    over = objection(ana, at(date(2026, 6, 6), 3, 45))
    assert "Ana works 22:00 to 04:00 on Saturday 6 June 2026; 30 minutes from 03:45 are not within that" in str(over)
    assert "Ana is closed on Sunday" in str(objection(ana, at(date(2026, 6, 7), 0, 30)))


def test_a_closed_day_closes_the_night_that_begins_on_it_and_not_the_one_that_ends_on_it() -> None:
    friday, saturday = date(2026, 6, 5), date(2026, 6, 6)
    assert starts_on(by_night(closures=frozenset({friday})), saturday) == []
    assert len(starts_on(by_night(closures=frozenset({saturday})), saturday)) == 16


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 28), 5), (date(2026, 10, 24), 7), (date(2026, 6, 6), 6)])
def test_a_night_in_which_the_clocks_change_is_an_hour_shorter_or_longer(day: date, hours: int) -> None:
    night = Opening(weekday=6, opens=22 * 60, closes=28 * 60)
    since = first_instant(at(day, 12), BERLIN)
    starts = list(by_night(night).free_starts(visit=Visit(GRID), since=since, until=since + timedelta(days=1)))
    assert len(starts) == hours * 4


def test_hours_that_overlap_offer_each_start_once_and_in_order() -> None:
    ana = by_night(NIGHT, Opening(weekday=6, opens=60, closes=300), Opening(weekday=6, opens=0, closes=120))
    starts = starts_on(ana, date(2026, 6, 6))
    assert starts == sorted(set(starts))
    assert len(starts) == 20


def test_now_may_be_in_any_zone() -> None:
    since = datetime(2026, 10, 25, 1, 50, tzinfo=BERLIN)
    starts = list(calendar().free_starts(visit=Visit(GRID), since=since, until=since + timedelta(hours=3)))
    assert starts == [first_instant(at(date(2026, 10, 25), 2), BERLIN) + number * GRID for number in range(len(starts))]


def test_a_day_that_ends_at_midnight_is_said_to_end_at_24() -> None:
    assert "Ana works 20:00 to 24:00 on" in str(objection(calendar(BERLIN, (20, 24)), at(date(2026, 6, 1), 19)))
