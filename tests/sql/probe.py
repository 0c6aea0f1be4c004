"""Finds every expression of a function or statement that would run an operator or function planted in `public`.

PostgreSQL itself decides: each statement becomes the body of a function in standard SQL (BEGIN ATOMIC …), whose names
are resolved when it is created, with the result in pg_depend. So code that no test runs is judged, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from pglast import ast, parse_sql

from tests.sql.reading import Function, calls

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # which takes no type argument when it runs

PLANTED = """
    SELECT coalesce(o.oid::regoperator::text, p.oid::regprocedure::text) AS planted
    FROM pg_depend d
    JOIN pg_proc probe ON d.classid = 'pg_proc'::regclass AND d.objid = probe.oid AND probe.proname = 'planted_probe'
    LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    WHERE 'stranger'::regrole IN (p.proowner, o.oprowner)
    ORDER BY 1
"""
# Functions that take any number of arguments of any types: something could be planted that fits any call better.
OPEN = """SELECT DISTINCT p.proname::text FROM pg_proc p WHERE p.provariadic = '"any"'::regtype"""
PARAMETERS = "SELECT parameter_types::pg_catalog.text[] FROM pg_catalog.pg_prepared_statements WHERE from_sql"
DROP = """
    DO $$
    DECLARE
        probe regprocedure;
    BEGIN
        FOR probe IN SELECT p.oid FROM pg_proc p WHERE p.proname = 'planted_probe' LOOP
            EXECUTE format('DROP FUNCTION %s', probe);
        END LOOP;
    END
    $$
"""
QUERIES = (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)
MISFIT = re.compile(r"Final statement returns (?P<type>.+) instead of .+ at column (?P<column>\d+)\.")


@dataclass(frozen=True)
class Hole:
    """An expression and what it would run, or why it cannot be judged."""

    place: str
    expression: str
    planted: str

    def __str__(self) -> str:
        return f"{self.place}: {self.planted}: {' '.join(self.expression.split())}"


class Probe:
    """Judges functions and statements in a database with planted objects.

    `connection` finds names as ours do; `catalog` has only pg_catalog in its search_path.
    """

    def __init__(self, connection: Connection, catalog: Connection) -> None:
        self._connection = connection
        self._catalog = catalog
        self._open: set[str] = set()

    async def statement(self, place: str, sql: str) -> list[Hole]:
        """The holes in a statement as asyncpg sends it, with $1, $2, … whose types the server infers."""
        try:
            await self._connection.execute(f"PREPARE planted_statement AS {sql}")
        except asyncpg.PostgresError as error:
            return [_refused(place, sql, error)]
        types = await self._connection.fetchval(PARAMETERS)
        await self._connection.execute("DEALLOCATE planted_statement")
        return await self._judge(place, sql, {f"parameter_{n}": type_ for n, type_ in enumerate(types)})

    async def function(
        self, place: str, function: Function, *, until: str | None = None, table: str | None = None
    ) -> list[Hole]:
        """The holes in a function up to the expression that contains `until`, except in SQL that it builds from text.

        A trigger function is judged as one of `table`.
        """
        variables = function.variables() if function.language == "plpgsql" else function.parameters
        if table is not None:
            variables |= {"new": table, "old": table}
        holes: list[Hole] = []
        for part in function.parts():
            where = f"{place} line {part.line}"
            known = {name: type_ for name, type_ in variables.items() if type_ != "record"}
            if variables.get(part.record) == "record":
                try:
                    variables[part.record] = await self._shape(part.sql, known)
                except asyncpg.PostgresError as error:
                    holes.append(_refused(where, part.sql, error))
                    continue
            holes += await self._judge(where, part.sql, known)
            if until is not None and until in part.sql:
                break
        return holes

    async def _judge(self, place: str, sql: str, parameters: dict[str, str]) -> list[Hole]:
        if not isinstance(parse_sql(sql)[0].stmt, QUERIES):
            return []  # what it creates is judged by its dependencies
        await self._find_open_functions()
        holes = [
            Hole(place, sql, f"public.{name}(whatever it is called with)")
            for name in sorted({call[0] for call in calls(parse_sql(sql)) if len(call) == 1} & self._open)
        ]
        try:
            await self._make(sql, parameters, "void")
        except asyncpg.PostgresError as error:
            return [*holes, _refused(place, sql, error)]
        return holes + [Hole(place, sql, row["planted"]) for row in await self._catalog.fetch(PLANTED)]

    async def _find_open_functions(self) -> None:
        if not self._open:
            self._open = {row["proname"] for row in await self._catalog.fetch(OPEN)}

    async def _make(self, sql: str, parameters: dict[str, str], returns: str) -> None:
        """Creates the probe anew."""
        await self._catalog.execute(DROP)
        declared = ", ".join(f'"{name}" {type_}' for name, type_ in parameters.items())
        await self._connection.execute(
            f"CREATE FUNCTION public.planted_probe({declared}) RETURNS {returns} LANGUAGE sql"
            f" BEGIN ATOMIC {sql.rstrip().rstrip(';')}; END"
        )

    async def _shape(self, sql: str, parameters: dict[str, str]) -> str:
        """A composite type like the rows of a query: given a wrong one, the server says what is right."""
        names = _columns(parse_sql(sql)[0].stmt)
        types = ["tid"] * len(names)
        while True:
            fields = ", ".join(f'"{name}" {type_}' for name, type_ in zip(names, types, strict=True))
            composite = f"public.planted_shape_{abs(hash(fields))}"
            if await self._catalog.fetchval("SELECT to_regtype($1)", composite) is None:
                await self._catalog.execute(f"CREATE TYPE {composite} AS ({fields})")
            try:
                await self._make(sql, parameters, f"SETOF {composite}")
            except asyncpg.InvalidFunctionDefinitionError as error:
                found = MISFIT.search(error.detail or "")
                if not found:
                    raise
                types[int(found["column"]) - 1] = found["type"]
            else:
                return composite


def _columns(query: Any) -> list[str]:
    """The names of a query's columns."""
    if query.larg:
        return _columns(query.larg)
    names: list[str] = []
    for target in query.targetList:
        if target.name:
            names.append(target.name)
        elif isinstance(target.val.fields[-1], ast.A_Star):
            [table] = query.fromClause
            defined = getattr(table, "coldeflist", None)
            names += [column.colname for column in defined] if defined else [n.sval for n in table.alias.colnames]
        else:
            names.append(target.val.fields[-1].sval)
    return names


def _refused(place: str, sql: str, error: asyncpg.PostgresError) -> Hole:
    return Hole(place, sql, f"{type(error).__name__}: {error}")
