"""Tools of MCP servers, by the official SDK: which of them an agent has, under which names, and what a call may do.

A server is not trusted: its tools count as having effects on the world, what it says of them must be what was accepted,
and it learns who is asking from the runtime alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from moorline_agents.json_limits import objection
from moorline_agents.mcp_accepted import Told, difference, read_accepted, told, write_accepted
from moorline_agents.tools import Effect, Tool, ToolContext, ToolRefused

if TYPE_CHECKING:
    from mcp_types import Tool as ServerTool

    from moorline_agents.mcp_calls import ServerCall
    from moorline_agents.mcp_session import Session

logger = logging.getLogger("moorline.mcp")

Identity = Callable[[ToolContext], Mapping[str, Any]]
CallHeaders = Callable[[ToolContext], Mapping[str, str]]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,32}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_DESCRIPTION = 4_000
_LONGEST_SCHEMA = 32_768
_MOST_TOOLS = 128
_PAUSE = 30.0  # seconds before a server that could not be reached is asked for its tools again


class MCPTools:
    """The tools of one MCP server, for the `tools` of any number of agents.

    The server is started by `command` (a program and its arguments), or reached at `url` (streamable HTTP), when an
    agent first needs it; it is asked for its tools once on each event loop, and again when it says that they changed.
    A server that is gone is reached again at the next call. Closing the runtime closes the session, and ends the
    process.

    The model knows each tool as `name`, an underscore, and the server's name of it, made valid and at most 64
    characters long; `only` are the server's names of those that agents have, by default all.

    `accepted` is a JSON file with what was accepted, which `accept` writes. A tool that is not in it, or whose
    description, schema or hints are others, is not offered, and a call of it is refused; a warning says what changed.
    Without `accepted`, what the process sees first counts as accepted until it ends.

    Every call is an effect `outside` and not idempotent. With `trust_hints`, a tool that its server calls read-only has
    the effect `none`, and one that it calls idempotent is called again after a crash.

    Only `identity` and `call_headers` say who is asking: `identity(context)` is sent along with each call as its
    `_meta`, and `call_headers(context)` as headers of its request to a `url`. `headers` go with every request to it. A
    started process inherits HOME, LOGNAME, PATH, SHELL, TERM and USER, and gets `env`, but no other variable, so no
    secret. A call may take `timeout` seconds (by default what the runtime allows a tool), a connection
    `connect_timeout`.

    Raises `ValueError` for a name or a combination that could never work and for a file that holds something else, and
    `ImportError` if the extra `mcp` is missing.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str] = (),
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        headers: Mapping[str, str] | None = None,
        identity: Identity | None = None,
        call_headers: CallHeaders | None = None,
        only: Sequence[str] | None = None,
        accepted: Path | str | None = None,
        trust_hints: bool = False,
        timeout: float | None = None,
        connect_timeout: float = 10,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name an MCP server: use 1 to 32 letters, digits, underscores or hyphens."
            )
        if isinstance(command, str) or bool(command) == (url is not None):
            raise ValueError(f"MCP server {name}: give a command, as a list of a program and its arguments, or a url.")
        if (url is None and (headers or call_headers)) or (url is not None and (env or cwd)):
            raise ValueError(f"MCP server {name}: headers belong to a url, env and cwd to a command.")
        try:
            from moorline_agents.mcp_connection import Server  # noqa: PLC0415 - the SDK takes a second, and is an extra
        except ModuleNotFoundError as error:
            raise ImportError("Tools of MCP servers need the SDK: run `pip install 'moorline[mcp]'`.") from error
        self.name = name
        self._server = Server(
            command=tuple(command),
            env=dict(env or {}),
            cwd=cwd,
            url=url,
            headers=dict(headers or {}),
            connect_timeout=connect_timeout,
        )
        self._identity = identity
        self._call_headers = call_headers
        self._only = None if only is None else frozenset(only)
        self._file = None if accepted is None else Path(accepted)
        self._accepted = {} if self._file is None else read_accepted(self._file)
        self._trust_hints = trust_hints
        self._timeout = timeout
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Known] = WeakKeyDictionary()

    async def tools(self) -> Sequence[Tool]:
        """The tools that agents have now. While the server cannot be reached, those that were listed last."""
        known = self._known()
        if known.not_before and (time.monotonic() < known.not_before or known.listing.locked()):
            return known.tools  # one at a time waits for a server that could not be reached
        async with known.listing:
            if known.session.changed and time.monotonic() >= known.not_before:
                await self._list(known)
            return known.tools

    def missing(self, name: str) -> Tool | None:
        if not name.startswith(f"{self.name}_"):
            return None
        from moorline_agents.mcp_arguments import arguments_model  # noqa: PLC0415 - as below

        return Tool(
            name=name,
            description="Is missing.",
            arguments=arguments_model({"type": "object"}),
            function=_Missing(self, name),
            effect="none" if self._trust_hints else "outside",  # as in the run before, as far as is known
            idempotent=False,
        )

    def refusal_of(self, name: str) -> ToolRefused:
        """Why a tool of this name, which is missing, cannot be called."""
        known = self._known()
        if known.session.changed:
            return self._unreachable()
        names = ", ".join(tool.name for tool in known.tools) or "none"
        return ToolRefused(f"There is no tool {name} now. The tools of {self.name} are: {names}.", code="mcp_changed")

    async def accept(self) -> None:
        """Writes into `accepted` what the server says of its tools now, for somebody to read and compare. It counts
        once the process has started again. Raises `ConnectionError` if the server cannot be reached."""
        if self._file is None:
            raise ValueError(f"MCP server {self.name}: `accepted` names no file.")
        from moorline_agents.mcp_session import Session  # noqa: PLC0415 - as above

        session = Session(self._server)
        try:
            listed = await session.list_tools()
        except Exception as error:
            raise ConnectionError(f"MCP server {self.name} cannot be asked for its tools ({_cause(error)}).") from error
        finally:
            await session.close()
        write_accepted(self._file, [told(tool) for tool in listed if self._has(tool)])

    async def aclose(self) -> None:
        """Closes the session of the running event loop, and ends its process."""
        known = self._loops.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known.session.close()

    def _known(self) -> _Known:
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is None:
            from moorline_agents.mcp_session import Session  # noqa: PLC0415 - as above

            known = self._loops[loop] = _Known(Session(self._server))
        return known

    async def _list(self, known: _Known) -> None:
        try:
            listed = await known.session.list_tools()
            # A stranger's schemas may take long to look at.
            known.tools = await asyncio.to_thread(self._usable, listed)
            known.not_before = 0.0
        except Exception as error:
            known.not_before = time.monotonic() + _PAUSE
            logger.warning("MCP server %s cannot be asked for its tools (%s).", self.name, _cause(error))

    def _usable(self, listed: Sequence[ServerTool]) -> tuple[Tool, ...]:
        tools: dict[str, Tool] = {}
        # In one order, so that prompts begin alike in all processes.
        wanted = sorted(filter(self._has, listed), key=lambda tool: tool.name)
        if len(wanted) > _MOST_TOOLS:
            logger.warning("MCP server %s has %s tools; the first %s count.", self.name, len(wanted), _MOST_TOOLS)
        for each in wanted[:_MOST_TOOLS]:
            made = self._tool(each)
            if made is not None and tools.setdefault(made.name, made) is not made:
                logger.warning(
                    "MCP server %s has several tools for the name %s; the first counts.", self.name, made.name
                )
        return tuple(tools.values())

    def _has(self, tool: ServerTool) -> bool:
        return self._only is None or tool.name in self._only

    def _tool(self, tool: ServerTool) -> Tool | None:
        """The tool as an agent has it; None if it is not accepted, or no model server would take it."""
        from moorline_agents.mcp_arguments import arguments_model  # noqa: PLC0415 - jsonschema comes with the extra

        schema, now = tool.input_schema, told(tool)
        if objection(now) is not None or len(json.dumps(schema)) > _LONGEST_SCHEMA:
            logger.warning("What MCP server %s says of its tool %.100r is too long or too deep.", self.name, tool.name)
            return None
        if not self._is_accepted(now):
            return None
        hints = tool.annotations if self._trust_hints else None
        effect: Effect = "none" if hints is not None and hints.read_only_hint else "outside"
        try:
            return Tool(
                name=self._named(tool.name),
                description=(tool.description or tool.title or tool.name)[:_LONGEST_DESCRIPTION],
                arguments=arguments_model(schema),
                function=_Call(self, tool.name, now),
                effect=effect,
                idempotent=bool(hints is not None and hints.idempotent_hint),
                timeout=self._timeout,
            )
        except (TypeError, ValueError) as error:
            logger.warning("Tool %.100r of MCP server %s cannot be offered: %s", tool.name, self.name, error)
            return None

    def _is_accepted(self, now: Told) -> bool:
        name = now["name"]
        accepted = self._accepted.setdefault(name, now) if self._file is None else self._accepted.get(name)
        if accepted == now:
            return True
        if self._file is None:
            way = "To accept it, start the process again"
        else:
            way = f"To accept it, run `await {self.name}.accept()`, which writes {self._file}, and start again"
        logger.warning(
            "Tool %.100r of MCP server %s is not what was accepted and is not offered: %s. %s.",
            name,
            self.name,
            difference(accepted or {}, now),
            way,
        )
        return False

    def _named(self, name: str) -> str:
        whole = f"{self.name}_{name}"
        if _TOOL_NAME.fullmatch(whole):
            return whole
        return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', whole)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"

    async def call(self, tool: str, described: Told, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """What the server gives for a call of the tool that was described so. Raises `ToolRefused`."""
        from moorline_agents.mcp_calls import ServerCall  # noqa: PLC0415 - as above
        from moorline_agents.mcp_session import SessionLost  # noqa: PLC0415 - as above

        meta = {} if self._identity is None else self._identity(context)
        headers = {} if self._call_headers is None else _checked(self._call_headers(context))
        made = ServerCall(server=self.name, tool=tool, arguments=arguments, meta=meta, headers=headers)
        try:
            try:
                return await self._attempt(made, described)
            except SessionLost as lost:
                if not lost.forgotten:
                    raise
            return await self._attempt(made, described)
        except SessionLost as lost:
            raise self._unreachable() from lost

    async def _attempt(self, call: ServerCall, described: Told) -> Any:
        known = self._known()
        async with known.listing:
            if known.session.changed:  # also after a failure: a server that is back may be another one
                await self._list(known)
        if all(each.function != _Call(self, call.tool, described) for each in known.tools):
            raise ToolRefused(
                f"{self.name} has no tool {call.tool} any more as it was described to you.", code="mcp_changed"
            )
        return await call.result(known.session)

    def _unreachable(self) -> ToolRefused:
        return ToolRefused(
            f"The server of {self.name} cannot be reached now; nothing was done.", code="mcp_unreachable"
        )


@dataclass
class _Known:
    """What is known of the server on an event loop."""

    session: Session
    tools: tuple[Tool, ...] = ()
    not_before: float = 0.0
    """When it is asked again for its tools, if it could not be reached."""
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class _Call:
    """The function of a tool."""

    server: MCPTools
    tool: str
    described: Told

    async def __call__(self, arguments: Any, context: ToolContext) -> Any:
        return await self.server.call(self.tool, self.described, arguments.root, context)


@dataclass(frozen=True)
class _Missing:
    """The function of a tool that is missing."""

    server: MCPTools
    name: str

    async def __call__(self, _arguments: Any, _context: ToolContext) -> Any:
        raise self.server.refusal_of(self.name)


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"The header {name} of a call may hold printable ASCII only.")
    return headers


def _cause(error: Exception) -> str:
    """What stood in the way, of an error that may only say that something did."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return type(cause).__name__
