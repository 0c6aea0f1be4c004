"""What a model passes to the scheduling tools. It does not include who is asking: the server knows that."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?")


def _local_time(value: Any) -> datetime:
    if not isinstance(value, str) or not _LOCAL.fullmatch(value.strip()):
        raise ValueError("write the day and the local time of the provider as YYYY-MM-DDTHH:MM")
    return datetime.fromisoformat(value.strip())


def _without_zone(value: time) -> time:
    if value.tzinfo is not None:
        raise ValueError("write the local time of the provider as HH:MM, without a zone")
    return value


def _reference(value: str) -> str:
    reference = value.strip().removeprefix("#").lower()
    if not re.fullmatch(r"[0-9a-f]{8}", reference):
        raise ValueError("a reference is 8 characters of 0-9 and a-f; list_appointments shows it")
    return reference


Name = Annotated[str, Field(min_length=1, max_length=200)]

Note = Annotated[str, Field(min_length=1, max_length=1_000)]

Start = Annotated[
    datetime,
    BeforeValidator(_local_time),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Local time of the provider, YYYY-MM-DDTHH:MM; preferably the `start` of a free slot.",
        }
    ),
]

TimeOfDay = Annotated[time, AfterValidator(_without_zone), WithJsonSchema({"type": "string"})]

Reference = Annotated[str, AfterValidator(_reference)]
_REFERENCE = "The appointment's reference, 8 characters; leave it out if there is only one appointment."


class FindSlots(BaseModel):
    service: Name | None = Field(
        default=None, description="Name of the service; leave it out to learn what is offered, and by whom."
    )
    provider: Name | None = Field(default=None, description="Name of the provider, if the person wants a specific one.")
    day: date | None = Field(default=None, description="YYYY-MM-DD; leave it out for the earliest slots.")
    after: TimeOfDay | None = Field(default=None, description="Only slots at this local time or later, HH:MM.")
    before: TimeOfDay | None = Field(default=None, description="Only slots before this local time, HH:MM.")


class Book(BaseModel):
    service: Name = Field(description="Name of the service.")
    start: Start
    provider: Name | None = Field(
        default=None, description="Name of the provider; leave it out for anyone who is free."
    )
    name: Name | None = Field(default=None, description="Whom it is for, if the person said a name.")
    note: Note | None = Field(
        default=None, description="What the staff should know, in the person's words; leave it out if there is nothing."
    )


class ListAppointments(BaseModel):
    pass


class Move(BaseModel):
    start: Start
    reference: Reference | None = Field(default=None, description=_REFERENCE)
    provider: Name | None = Field(default=None, description="Name of the new provider, if that should change.")


class Cancel(BaseModel):
    reference: Reference | None = Field(default=None, description=_REFERENCE)
