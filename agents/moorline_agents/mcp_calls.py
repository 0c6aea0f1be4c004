"""A call of an MCP server's tool, and what a model is told if it fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp import MCPError
from mcp_types import INTERNAL_ERROR, PARSE_ERROR

from moorline_agents.mcp_results import result_of
from moorline_agents.mcp_session import Session, SessionLost
from moorline_agents.tools import ToolRefused

logger = logging.getLogger("moorline.mcp")

_UNKNOWN = frozenset({INTERNAL_ERROR, PARSE_ERROR})
"""Errors that a proxy in between, or the SDK, may give when the call was made."""


@dataclass(frozen=True, kw_only=True)
class ServerCall:
    """A call of a tool of a server, both by their names. Only `meta` and `headers` say who is asking."""

    server: str
    tool: str
    arguments: Mapping[str, Any]
    meta: Mapping[str, Any]
    headers: Mapping[str, str]

    async def result(self, session: Session) -> Any:
        """What the tool gives. Raises `ToolRefused`, and `SessionLost` if the server has not heard of the call."""
        try:
            return result_of(await session.call(self.tool, self.arguments, self.meta, self.headers))
        except SessionLost as lost:
            if not lost.sent:
                raise
            cause = type(lost.__cause__).__name__
            logger.warning("A call of tool %.100r of MCP server %s was lost (%s).", self.tool, self.server, cause)
            raise self._lost("was lost") from lost
        except MCPError as error:
            if error.code in _UNKNOWN:
                raise self._lost(f"failed ({error.message})") from error
            raise ToolRefused(f"{self.server} refused the call: {error.message}", code="mcp_error") from error

    def _lost(self, what: str) -> ToolRefused:
        return ToolRefused(
            f"The server of {self.server} {what} in the middle of the call. Whether it was carried out is not known: "
            "say so, and do not repeat it without being asked to.",
            code="mcp_lost",
        )
