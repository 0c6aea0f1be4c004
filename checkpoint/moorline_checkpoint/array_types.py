"""The array types of our statements, which asyncpg would otherwise look up on every new connection.

Its look-up finds operators by their bare names: one planted in `public` would run with our rights, and on a cluster the
look-up takes half a second or more. The OIDs of these types are the same on every server.
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
"""The name and OID of the element type, by the array type's OID. asyncpg itself knows text[] and oid[]."""


class _NothingSent:
    """Stands in for the look-up's statement. With a name it asks for no other statement to be prepared again."""

    name = "none"


class KnownArrays(_AnyConnection):
    """A connection that asks the server only about types that are not ours."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        wanted = set(typeoids)
        if wanted <= ARRAYS.keys():
            return [described(number) for number in wanted], _NothingSent()
        return await super()._introspect_types(wanted, timeout)  # type: ignore[misc]  # the stubs leave it out


def described(number: int) -> dict[str, object]:
    """What a look-up returns for an array type."""
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
