"""Our SQL as PostgreSQL's own parser reads it: the files, the functions in them, and the statements in those."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pglast import ast, parse_sql
from pglast.parser import parse_plpgsql_json
from pglast.stream import RawStream

from moorline_agents.scheduling.repository import STATEMENTS as SCHEDULING
from moorline_checkpoint.database import STATEMENTS as CHECKPOINTER
from moorline_migrations.identifiers import in_schema
from moorline_migrations.statements import load

# What plpgsql's parser calls a statement and an expression; the other modes are assignments.
STATEMENT, EXPRESSION = 0, 2
ASSIGNED = re.compile(r"^.*?(?::=|=)", re.DOTALL)
META = re.compile(r"^\\.*$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A statement or expression (as a SELECT) of a function, and the record variable that takes its rows."""

    line: int
    sql: str
    record: str = ""


@dataclass(frozen=True)
class Function:
    """A function as CREATE FUNCTION or DO defines it. `parameters` are names with types."""

    name: str
    language: str
    definition: str
    body: str
    parameters: dict[str, str]
    settings: tuple[str, ...]

    def parts(self) -> Iterator[Part]:
        """The statements that it runs, in order."""
        if self.language != "plpgsql":
            yield from (Part(line, sql) for line, sql in statements(self.body))
            return
        for line, expression, record in _expressions(self._parsed()["action"]):
            text = expression["query"]
            if expression["parseMode"] == EXPRESSION:
                text = f"SELECT {text}"
            elif expression["parseMode"] != STATEMENT:
                text = f"SELECT {ASSIGNED.sub('', text, count=1)}"
            yield Part(line, text, record)

    def variables(self) -> dict[str, str]:
        """Its parameters and PL/pgSQL variables, with their declared types."""
        found = self.parameters | {"found": "boolean"}
        for kind, datum in (next(iter(item.items())) for item in self._parsed()["datums"]):
            name = datum.get("refname", "")
            if name in found:
                continue
            if kind == "PLpgSQL_var":
                found[name] = datum["datatype"]["PLpgSQL_type"]["typname"]
            elif kind == "PLpgSQL_rec":
                declared = re.search(rf"^\s*{name}\s+([\w.%\"]+)", self.body, re.MULTILINE)
                if declared:
                    found[name] = declared[1]
        return found

    def _parsed(self) -> dict[str, Any]:
        [parsed] = json.loads(parse_plpgsql_json(self.definition))
        function: dict[str, Any] = parsed["PLpgSQL_function"]
        return function


def definitions() -> Iterator[tuple[str, str]]:
    """The files that create tables and functions, including psql scripts: path and text, for the schema `public`."""
    root = Path(str(files("moorline_migrations")))
    for file in sorted(root.rglob("*.sql")):
        yield file.relative_to(root.parent).as_posix(), in_schema(file.read_text(encoding="utf-8"), "public")


def sent() -> Iterator[tuple[str, str]]:
    """The statements that are sent by themselves: their places and texts."""
    for package in (CHECKPOINTER, SCHEDULING):
        for name, statement in load(package, "public").items():
            yield f"{package} {name}", statement.sql


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of an SQL text, each with its line; psql's own commands are skipped."""
    text = META.sub("", text)
    for raw in parse_sql(text):
        start = raw.stmt_location
        sql = text[start : start + raw.stmt_len if raw.stmt_len else None]
        blank = len(sql) - len(sql.lstrip())
        yield text.count("\n", 0, start + blank) + 1, sql.strip()


def functions(text: str) -> Iterator[Function]:
    """The functions that an SQL text creates, and its DO blocks."""
    for line, sql in statements(text):
        [raw] = parse_sql(sql)
        if isinstance(raw.stmt, ast.CreateFunctionStmt):
            yield function(sql)
        elif isinstance(raw.stmt, ast.DoStmt):
            [body] = [option.arg.sval for option in raw.stmt.args if option.defname == "as"]
            definition = f"CREATE FUNCTION block() RETURNS void LANGUAGE plpgsql AS $block_{line}${body}$block_{line}$"
            yield Function(f"DO in line {line}", "plpgsql", definition, body, {}, ())


def function(definition: str) -> Function:
    """What CREATE FUNCTION defines."""
    [raw] = parse_sql(definition)
    create = raw.stmt
    assert isinstance(create, ast.CreateFunctionStmt)
    options = [(option.defname, option.arg) for option in create.options]
    [language] = [arg.sval for name, arg in options if name == "language"]
    # A body in standard SQL is not a string; we have none of these.
    body = next((arg[0].sval for name, arg in options if name == "as"), "")
    return Function(
        name=create.funcname[-1].sval,
        language=language,
        definition=definition,
        body=body,
        parameters={
            parameter.name or f"parameter_{n}": str(RawStream()(parameter.argType))
            for n, parameter in enumerate(create.parameters or ())
        },
        settings=tuple(arg.name for name, arg in options if name == "set"),
    )


def nodes(*trees: Any) -> Iterator[Any]:
    """All nodes of some parse trees, including the roots."""
    for tree in trees:
        if isinstance(tree, tuple):
            yield from nodes(*tree)
        elif isinstance(tree, ast.Node):
            yield tree
            yield from nodes(*(getattr(tree, attribute) for attribute in tree))


def calls(*trees: Any) -> Iterator[tuple[str, ...]]:
    """The functions called in some parse trees, each with its schema if one is given."""
    for node in nodes(*trees):
        if isinstance(node, ast.FuncCall):
            yield tuple(part.sval for part in node.funcname)


def _expressions(node: Any, line: int = 0, record: str = "") -> Iterator[tuple[int, dict[str, Any], str]]:
    """Every expression of a statement tree; a query comes before what uses its rows."""
    if isinstance(node, list):
        for item in node:
            yield from _expressions(item, line)
    elif isinstance(node, dict):
        if "PLpgSQL_expr" in node:
            yield line, node["PLpgSQL_expr"], record
            return
        line = node.get("lineno", line)
        rows = node.get("var", node.get("target"))
        filled = rows.get("PLpgSQL_rec", {}).get("refname", "") if isinstance(rows, dict) else ""
        for key in sorted(node, key=lambda key: key not in ("query", "sqlstmt")):
            yield from _expressions(node[key], line, filled if key in ("query", "sqlstmt") else "")
