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
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from moorline_agents.json_limits import objection
from moorline_agents.tools import Effect, Tool, ToolContext, ToolRefused

if TYPE_CHECKING:
    from mcp_types import Tool as ServerTool

    from moorline_agents.mcp_session import Session

logger = logging.getLogger("moorline.mcp")

Identity = Callable[[ToolContext], Mapping[str, Any]]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,32}")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_DESCRIPTION = 4_000
_LONGEST_SCHEMA = 32_768
_PAUSE = 30.0  # seconds before a server that could not be reached is asked for its tools again


class MCPTools:
    """The tools of one MCP server, for the `tools` of any number of agents.

    The server is started by `command` (a program and its arguments), or reached at `url` (streamable HTTP), when an
    agent first needs it; it is asked for its tools once on each event loop, and again when it says that they changed.
    A server that is gone is reached again at the next call. Closing the runtime closes the session, and ends the
    process.

    The model knows each tool as `name`, an underscore, and the server's name of it, made valid and at most 64
    characters long; `only` are the server's names of those that agents have, by default all.

    `accepted` are the hashes of what was accepted, by the server's names of the tools; `hashes` gives them. A tool that
    is not among them, or whose description, schema or hints are others, is not offered, and a call of it is refused.
    Without `accepted`, what the process sees first counts as accepted until it ends.

    Every call is an effect `outside` and not idempotent. With `trust_hints`, a tool that its server calls read-only has
    the effect `none`, and one that it calls idempotent is called again after a crash.

    `identity(context)` is sent along with each call as its `_meta`; only it says who is asking. `headers` go with every
    request to a `url`. A started process inherits HOME, LOGNAME, PATH, SHELL, TERM and USER, and gets `env`, but no
    other variable, so no secret. A call may take `timeout` seconds (by default what the runtime allows a tool), a
    connection `connect_timeout`.

    Raises `ValueError` for a name or a combination that could never work, and `ImportError` if the extra `mcp` is
    missing.
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
        only: Sequence[str] | None = None,
        accepted: Mapping[str, str] | None = None,
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
        if (url is None and headers) or (url is not None and (env or cwd)):
            raise ValueError(f"MCP server {name}: headers belong to a url, env and cwd to a command.")
        try:
            from moorline_agents.mcp_session import Server  # noqa: PLC0415 - the SDK takes a second, and is an extra
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
        self._only = None if only is None else frozenset(only)
        self._accepted = dict(accepted or {})
        self._first_counts = accepted is None
        self._trust_hints = trust_hints
        self._timeout = timeout
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Known] = WeakKeyDictionary()

    async def tools(self) -> Sequence[Tool]:
        """The tools that agents have now. While the server cannot be reached, those that were listed last."""
        known = self._known()
        if time.monotonic() < known.not_before:
            return known.tools
        async with known.listing:
            if known.session.changed and time.monotonic() >= known.not_before:
                await self._list(known)
            return known.tools

    async def hashes(self) -> dict[str, str]:
        """The hash of each tool as the server describes it now, by the server's names; for `accepted`, once somebody
        has read the descriptions. Raises the SDK's errors if the server cannot be reached."""
        known = self._known()
        async with known.listing:
            listed = await known.session.list_tools()
            known.tools = self._usable(listed)
        return {tool.name: _hash(tool) for tool in listed}

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
            known.tools = self._usable(await known.session.list_tools())
            known.not_before = 0.0
        except Exception as error:
            known.not_before = time.monotonic() + _PAUSE
            cause = error.__cause__ or error
            logger.warning("MCP server %s cannot be asked for its tools (%s).", self.name, type(cause).__name__)

    def _usable(self, listed: Sequence[ServerTool]) -> tuple[Tool, ...]:
        tools: dict[str, Tool] = {}
        for each in listed:
            if self._only is not None and each.name not in self._only:
                continue
            if not self._is_accepted(each):
                continue
            made = self._tool(each)
            if made is not None and tools.setdefault(made.name, made) is not made:
                logger.warning(
                    "MCP server %s has several tools for the name %s; the first counts.", self.name, made.name
                )
        return tuple(tools.values())

    def _is_accepted(self, tool: ServerTool) -> bool:
        hashed = _hash(tool)
        accepted = self._accepted.setdefault(tool.name, hashed) if self._first_counts else self._accepted.get(tool.name)
        if accepted == hashed:
            return True
        why = "is not accepted" if accepted is None else "is not what was accepted"
        logger.warning(
            "Tool %r of MCP server %s %s and is not offered; its hash is %s.", tool.name, self.name, why, hashed
        )
        return False

    def _tool(self, tool: ServerTool) -> Tool | None:
        """The tool as an agent has it; None if no model server would take it."""
        from moorline_agents.mcp_arguments import arguments_model  # noqa: PLC0415 - jsonschema comes with the extra

        hints = tool.annotations if self._trust_hints else None
        effect: Effect = "none" if hints is not None and hints.read_only_hint else "outside"
        schema = tool.input_schema
        if objection(schema) is not None or len(json.dumps(schema)) > _LONGEST_SCHEMA:
            logger.warning("The schema of tool %r of MCP server %s is too long or too deep.", tool.name, self.name)
            return None
        try:
            return Tool(
                name=self._named(tool.name),
                description=(tool.description or tool.title or tool.name)[:_LONGEST_DESCRIPTION],
                arguments=arguments_model(schema),
                function=_Call(self, tool.name, _hash(tool)),
                effect=effect,
                idempotent=bool(hints is not None and hints.idempotent_hint),
                timeout=self._timeout,
            )
        except (TypeError, ValueError) as error:
            logger.warning("Tool %r of MCP server %s cannot be offered: %s", tool.name, self.name, error)
            return None

    def _named(self, name: str) -> str:
        whole = f"{self.name}_{name}"
        if _TOOL_NAME.fullmatch(whole):
            return whole
        return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', whole)[:55]}_{sha256(name.encode()).hexdigest()[:8]}"

    async def call(self, tool: str, hashed: str, arguments: Mapping[str, Any], context: ToolContext) -> Any:
        """What the server gives for a call of the tool with this hash. Raises `ToolRefused`."""
        from mcp import MCPError  # noqa: PLC0415 - as above

        from moorline_agents.mcp_results import result_of  # noqa: PLC0415 - as above
        from moorline_agents.mcp_session import SessionLost  # noqa: PLC0415 - as above

        known = self._known()
        async with known.listing:
            if known.session.changed:  # also after a failure: a server that is back may be another one
                await self._list(known)
        if all(each.function != _Call(self, tool, hashed) for each in known.tools):
            raise ToolRefused(
                f"{self.name} has no tool {tool} any more as it was described to you.", code="mcp_changed"
            )
        meta = {} if self._identity is None else dict(self._identity(context))
        with suppress(SessionLost):
            try:
                return result_of(await known.session.call(tool, arguments, meta))
            except MCPError as error:
                raise ToolRefused(f"{self.name} refused the call: {error.message}", code="mcp_error") from error
            except SessionLost as lost:
                if lost.sent:
                    raise ToolRefused(
                        f"The server of {self.name} was lost in the middle of the call. Whether it was carried out is "
                        "not known: say so, and do not repeat it without being asked to.",
                        code="mcp_lost",
                    ) from lost
                raise
        raise ToolRefused(f"The server of {self.name} cannot be reached; nothing was done.", code="mcp_unreachable")


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
    hashed: str

    async def __call__(self, arguments: Any, context: ToolContext) -> Any:
        return await self.server.call(self.tool, self.hashed, arguments.root, context)


def _hash(tool: ServerTool) -> str:
    """What stands for all that a model, or a runtime that trusts hints, is told of the tool."""
    hints = None if tool.annotations is None else tool.annotations.model_dump(mode="json", exclude_none=True)
    told = [tool.name, tool.title, tool.description, tool.input_schema, hints]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
