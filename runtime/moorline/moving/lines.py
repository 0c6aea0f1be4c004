"""The format of an export: JSON Lines, read strictly and written whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, BinaryIO, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from moorline.errors import BadExport

VERSION = 1
"""The version of the format that is written, and the newest that is read."""

MAX_LINE = 256 * 2**20
"""Bytes of a line. A value of a row takes up to twice its bytes."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Opening(_Line):
    """The first line."""

    kind: Literal["export"] = "export"
    version: Literal[1] = 1
    components: dict[str, NonNegativeInt]
    """The version of each component whose rows follow."""
    exported_at: Annotated[AwareDatetime, Field(strict=False)]
    """The moment of the whole export, on the database's clock."""


class Start(_Line):
    """The rows of a conversation follow: those of all its devices."""

    kind: Literal["conversation"] = "conversation"
    devices: Annotated[list[str], Field(min_length=1)]


class Row(_Line):
    """A row of a table: each value as PostgreSQL's text of it. Before the first conversation, it belongs to none."""

    kind: Literal["row"] = "row"
    table: str
    row: dict[str, str | None]


class Finish(_Line):
    """The end of a conversation, and how many rows it has."""

    kind: Literal["conversation_end"] = "conversation_end"
    rows: NonNegativeInt


class Closing(_Line):
    """The last line, and how many conversations there were."""

    kind: Literal["export_end"] = "export_end"
    conversations: NonNegativeInt


Line = Opening | Start | Row | Finish | Closing
_LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])
_L = TypeVar("_L", bound=_Line)


class _Kind(BaseModel):
    """What a first line has in every version of the format."""

    kind: Literal["export"]
    version: int


def line_of(line: Line) -> bytes:
    """The line as it is written."""
    return line.model_dump_json().encode() + b"\n"


def opening_line(components: Mapping[str, int], exported_at: datetime) -> bytes:
    """The first line."""
    return line_of(Opening(components=dict(components), exported_at=exported_at))


def row_line(table: str, row: Mapping[str, str | None]) -> bytes:
    """The line of a row, as `line_of` makes it, in less time."""
    return json.dumps({"kind": "row", "table": table, "row": row}, ensure_ascii=False).encode() + b"\n"


class Lines:
    """Reads an export line by line, at most `MAX_LINE` bytes at a time. Raises `BadExport`, which names the line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.last: Line | None = None
        """The line that was read last."""

    def opening(self) -> Opening:
        """The first line. An export of a newer version is refused before anything else of it is read."""
        raw = self._raw()
        try:
            version = _Kind.model_validate_json(raw, strict=True).version
        except ValidationError:
            raise self.bad("This is no export of Moorline's") from None
        if version > VERSION:
            raise self.bad(f"This export is of version {version}, and this code reads up to {VERSION}: use newer code")
        return self.require(self._read(raw), Opening)

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        self.last = self._read(self._raw())
        return self.last

    def end(self) -> None:
        """Raises if anything follows."""
        if self._file.read(1):
            self.number += 1
            raise self.bad("Something follows the end of the export")

    def require(self, line: Line, kind: type[_L]) -> _L:
        """The line, if it is of this kind."""
        if not isinstance(line, kind):
            raise self.bad(f"A line of the kind {line.kind!r} cannot stand here")
        return line

    def bad(self, reason: str) -> BadExport:
        """The error for the line that was read last."""
        return BadExport(f"{reason} (line {self.number}).")

    def _raw(self) -> bytes:
        self.number += 1
        raw = self._file.readline(MAX_LINE + 1)
        if len(raw) > MAX_LINE:
            raise self.bad(f"A line is longer than {MAX_LINE} bytes")
        if not raw.endswith(b"\n"):
            raise self.bad("The export was cut off: it has no end. Export again")
        return raw

    def _read(self, raw: bytes) -> Line:
        try:
            return _LINES.validate_json(raw)
        except ValidationError as error:
            what = error.errors(include_input=False, include_url=False, include_context=False)[0]["msg"]
            raise self.bad(f"A line of the export is damaged: {what}") from None
