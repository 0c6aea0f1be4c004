"""The JSON of events: one schema, checked in, that fits every event of a real turn."""

import json
from pathlib import Path
from typing import Any, get_args

from jsonschema import Draft202012Validator

from moorline import Event, Moorline
from moorline.event_schema import event_schema

from .conftest import Open

SCHEMA = Path(__file__).parents[2] / "docs" / "events.schema.json"


async def told(moorline: Moorline, text: Any, **context: Any) -> list[Event]:
    return [event async for event in moorline.stream(text, {"device_id": "d1", **context})]


def check(event: Event) -> None:
    assert type(event)(**vars(event)) == event  # it has all of its fields, and no others
    shown = json.loads(json.dumps(event.to_json(), allow_nan=False))
    Draft202012Validator(event_schema()).validate(shown)
    assert set(shown) == set(event_schema()["$defs"][type(event).__name__]["required"])
    assert "d1" not in map(str, shown.values())


def test_the_schema_that_is_checked_in_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == event_schema()
    Draft202012Validator.check_schema(event_schema())
    assert len({kind.type for kind in get_args(Event)}) == len(event_schema()["oneOf"])


async def test_events_of_real_turns_fit_the_schema_and_are_numbered(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        for text in ("hair please", "hand over to nails", "bye"):
            events = await told(moorline, text, message_id=text)
            for event in events:
                check(event)
            assert [event.seq for event in events] == [*range(1, len(events) + 1)]
            assert {event.device_id for event in events} == {"d1"}
        for text, message_id in (("bye", "bye"), ("", "m9")):
            for event in await told(moorline, text, message_id=message_id):
                check(event)
