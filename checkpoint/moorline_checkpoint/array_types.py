"""The array types of our statements, which asyncpg would else look up on every new connection.

Its look-up finds operators by their bare names: one that anybody planted in `public` would be run with our rights, and
on a cluster it takes half a second and more. The numbers of these types are the same on every server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterable

    _AnyConnection = asyncpg.Connection[asyncpg.Record]
else:
    _AnyConnection = asyncpg.Connection  # which takes no type argument when it runs

ARRAYS = {
    1000: ("bool", 16),
    1001: ("bytea", 17),
    1005: ("int2", 21),
    1007: ("int4", 23),
    1014: ("bpchar", 1042),
    1015: ("varchar", 1043),
    1016: ("int8", 20),
    1022: ("float8", 701),
    1185: ("timestamptz", 1184),
    2951: ("uuid", 2950),
    3807: ("jsonb", 3802),
}
"""By their numbers, the name and number of what they are arrays of. asyncpg itself knows text[] and oid[]."""


class _NothingSent:
    """In place of the statement of a look-up. With a name it asks for no other statement to be prepared again."""

    name = "none"


class KnownArrays(_AnyConnection):
    """A connection that asks the server about types only where they are none of ours."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        wanted = set(typeoids)
        if wanted <= ARRAYS.keys():
            return [described(number) for number in wanted], _NothingSent()
        return await super()._introspect_types(wanted, timeout)  # type: ignore[misc]


def described(number: int) -> dict[str, object]:
    """What a look-up says of an array type."""
    element, element_number = ARRAYS[number]
    return {
        "oid": number,
        "ns": "pg_catalog",
        "name": f"_{element}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element_number,
        "elemdelim": b",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
        "basetype_name": None,
        "elemtype_name": element,
        "range_subtype_name": None,
    }
