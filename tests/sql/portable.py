"""What a cluster of PostgreSQL servers (Citus) refuses in a statement, or silently does wrong.

Each rule was tried on a real cluster. Functions and statements that follow them run there, at no cost on a single
server. A rule about functions holds for the statements inside them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast, enums, parse_sql

from tests.sql.reading import Function, calls, nodes, statements

VOLATILE = {"clock_timestamp", "nextval", "random", "gen_random_uuid", "timeofday", "setval", "uuidv4", "uuidv7"}
SEQUENCES = {"nextval", "currval", "setval", "lastval"}


@dataclass(frozen=True)
class Finding:
    """A rule and the place where it is broken."""

    rule: str
    place: str
    sql: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.place}: {' '.join(self.sql.split())}"


def of_file(place: str, text: str) -> Iterator[Finding]:
    """What is wrong in an SQL text, apart from the bodies of its functions."""
    for line, sql in statements(text):
        where = f"{place} line {line}"
        [raw] = parse_sql(sql)
        for rule, broken in DEFINITIONS.items():
            if broken(raw.stmt):
                yield Finding(rule, where, sql)


def of_function(place: str, function: Function) -> Iterator[Finding]:
    """What is wrong in the statements of a function."""
    for part in function.parts():
        yield from _of(f"{place} line {part.line}", part.sql, FUNCTIONS | STATEMENTS)


def of_statement(place: str, sql: str) -> Iterator[Finding]:
    """What is wrong in a statement that is sent by itself."""
    if len(list(statements(sql))) != 1:
        yield Finding("one command at a time", place, sql)
    yield from _of(place, sql, SENT | STATEMENTS)


def _of(place: str, sql: str, rules: dict[str, Rule]) -> Iterator[Finding]:
    for raw in parse_sql(sql):
        for rule, broken in rules.items():
            if any(broken(node) for node in nodes(raw.stmt)):
                yield Finding(rule, place, sql)


def _calls(*trees: Any) -> set[str]:
    return {name[-1] for name in calls(*trees)}


def _column(node: Any) -> str:
    """The name of a column, or nothing."""
    if isinstance(node, ast.ColumnRef) and isinstance(node.fields[-1], ast.String):
        name: str = node.fields[-1].sval
        return name
    return ""


def _changes(node: Any) -> tuple[Any, ...]:
    """SET and WHERE of an UPDATE or of ON CONFLICT DO UPDATE."""
    if isinstance(node, ast.UpdateStmt | ast.OnConflictClause):
        return node.targetList, node.whereClause
    return ()


def _sql_function_with_parameters(node: Any) -> bool:
    return (
        isinstance(node, ast.CreateFunctionStmt)
        and any(
            parameter.mode
            not in (enums.FunctionParameterMode.FUNC_PARAM_TABLE, enums.FunctionParameterMode.FUNC_PARAM_OUT)
            for parameter in node.parameters or ()
        )
        and any(option.defname == "language" and option.arg.sval == "sql" for option in node.options)
    )


def _search_path_of_a_function(node: Any) -> bool:
    options = {
        ast.CreateFunctionStmt: "options",
        ast.AlterFunctionStmt: "actions",
    }.get(type(node))
    return options is not None and any(
        option.defname == "set" and option.arg.name == "search_path" for option in getattr(node, options)
    )


def _makes_a_sequence(node: Any) -> bool:
    return any(
        isinstance(part, ast.CreateSeqStmt)
        or (isinstance(part, ast.Constraint) and part.contype == enums.ConstrType.CONSTR_IDENTITY)
        or (isinstance(part, ast.TypeName) and part.names and "serial" in part.names[-1].sval)
        or (isinstance(part, ast.FuncCall) and part.funcname[-1].sval in SEQUENCES)
        for part in nodes(node)
    )


def _calls_a_sequence(node: Any) -> bool:
    return isinstance(node, ast.FuncCall) and bool(node.funcname[-1].sval in SEQUENCES)


def _volatile_in_update(node: Any) -> bool:
    return bool(_calls(*_changes(node)) & VOLATILE)


def _function_in_where_of_update(node: Any) -> bool:
    where = getattr(node, "whereClause", None) if _changes(node) else None
    return bool(_calls(where))


def _moment_in_conflict(node: Any) -> bool:
    """A moment plus or minus an interval depends on the session's time zone."""
    return isinstance(node, ast.OnConflictClause) and any(
        isinstance(part, ast.A_Expr)
        and part.kind == enums.A_Expr_Kind.AEXPR_OP
        and part.name[-1].sval in ("+", "-")
        and any(_is_interval(side) for side in (part.lexpr, part.rexpr) if side is not None)
        for part in nodes(*_changes(node))
    )


def _is_interval(node: Any) -> bool:
    if isinstance(node, ast.TypeCast):
        return bool(node.typeName.names[-1].sval == "interval")
    if isinstance(node, ast.FuncCall):
        return bool(node.funcname[-1].sval == "make_interval")
    return isinstance(node, ast.A_Expr) and any(_is_interval(side) for side in (node.lexpr, node.rexpr) if side)


def _element_in_set(node: Any) -> bool:
    values = [target.val for target in _changes(node)[0] or ()] if _changes(node) else []
    return any(
        isinstance(part, ast.A_Indirection) and any(isinstance(index, ast.A_Indices) for index in part.indirection)
        for part in nodes(*values)
    )


def _array_of_select_in_values(node: Any) -> bool:
    return (
        isinstance(node, ast.InsertStmt)
        and isinstance(node.selectStmt, ast.SelectStmt)
        and any(
            isinstance(part, ast.SubLink) and part.subLinkType == enums.SubLinkType.ARRAY_SUBLINK
            for part in nodes(node.selectStmt.valuesLists)
        )
    )


def _locks_many_devices(node: Any) -> bool:
    return (
        isinstance(node, ast.SelectStmt)
        and bool(node.lockingClause)
        and any(
            isinstance(part, ast.A_Expr)
            and part.kind in (enums.A_Expr_Kind.AEXPR_OP_ANY, enums.A_Expr_Kind.AEXPR_IN)
            and _column(part.lexpr) == "device_id"
            for part in nodes(node.whereClause)
        )
    )


def _lateral_limit_without_device(node: Any) -> bool:
    if not (isinstance(node, ast.RangeSubselect) and node.lateral):
        return False
    query = node.subquery
    if not (isinstance(query, ast.SelectStmt) and query.limitCount):
        return False
    tables = {
        table.alias.aliasname if table.alias else table.relname
        for table in nodes(query.fromClause)
        if isinstance(table, ast.RangeVar)
    }
    given = {
        side.fields[0].sval if len(side.fields) > 1 else ""
        for part in nodes(query.whereClause)
        if isinstance(part, ast.A_Expr) and part.name[-1].sval == "="
        for side, other in ((part.lexpr, part.rexpr), (part.rexpr, part.lexpr))
        if _column(side) == "device_id" and _is_given(other)
    }
    return not tables <= given


def _is_given(node: Any) -> bool:
    """A parameter, a variable or a literal, and nothing from an outer row."""
    if isinstance(node, ast.TypeCast):
        return _is_given(node.arg)
    return isinstance(node, ast.ParamRef | ast.A_Const) or (isinstance(node, ast.ColumnRef) and len(node.fields) == 1)


def _selects_into_states(node: Any) -> bool:
    return (
        isinstance(node, ast.InsertStmt)
        and node.relation.relname == "conversation_states"
        and isinstance(node.selectStmt, ast.SelectStmt)
        and not node.selectStmt.valuesLists
    )


def _sets(node: Any) -> bool:
    return isinstance(node, ast.FuncCall) and bool(node.funcname[-1].sval == "set_config")


def _sets_beside_other_work(node: Any) -> bool:
    return isinstance(node, ast.SelectStmt) and bool(node.fromClause) and "set_config" in _calls(node)


def _advisory_lock(node: Any) -> bool:
    return isinstance(node, ast.FuncCall) and bool("_advisory_" in node.funcname[-1].sval)


def _star(node: Any) -> bool:
    return isinstance(node, ast.ColumnRef) and isinstance(node.fields[-1], ast.A_Star)


def _bare_star(node: Any) -> bool:
    return _star(node) and isinstance(node, ast.ColumnRef) and len(node.fields) == 1


Rule = Callable[[Any], bool]

DEFINITIONS: dict[str, Rule] = {
    "functions with parameters in PL/pgSQL": _sql_function_with_parameters,
    "no search_path on a function": _search_path_of_a_function,
    "no sequences": _makes_a_sequence,
}
STATEMENTS: dict[str, Rule] = {
    "nothing volatile in an UPDATE: into a variable first": _volatile_in_update,
    "no function in an UPDATE's WHERE: collect IDs first": _function_in_where_of_update,
    "no moment plus interval in ON CONFLICT": _moment_in_conflict,
    "no element of an array in SET: a scalar variable": _element_in_set,
    "no ARRAY(SELECT …) in VALUES: a variable": _array_of_select_in_values,
    "devices locked one by one": _locks_many_devices,
    "LATERAL … LIMIT only with a given device_id on every table": _lateral_limit_without_device,
    "no INSERT … SELECT into conversation_states": _selects_into_states,
    "no advisory lock: lock the row": _advisory_lock,
    "no sequences": _calls_a_sequence,
}
FUNCTIONS: dict[str, Rule] = {
    "set_config in a statement of its own": _sets,
    "columns by name": _bare_star,
}
SENT: dict[str, Rule] = {
    "set_config in a statement of its own": _sets_beside_other_work,
    "columns by name": _star,
}
