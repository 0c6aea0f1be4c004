"""A model that gives scripted answers; `rule_client` makes it a client, `serve` a server."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from moorline_agents.transport import ModelReply, RawReply

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from moorline_agents.transport import ModelRequest, Reply, Rules


class Script:
    """Rules that give the next of `replies` (a `str` is an answer with that text), or what `rules` returns.

    Raises `AssertionError` when no reply is left.
    """

    def __init__(self, *replies: Reply | str, rules: Rules | None = None) -> None:
        self.requests: list[ModelRequest] = []
        """Everything the model was shown so far, in order."""
        self._left = deque(replies)
        self._rules = rules

    def __call__(self, request: ModelRequest) -> Reply | Awaitable[Reply]:
        self.requests.append(request)
        if self._rules is not None:
            return self._rules(request)
        if not self._left:
            raise AssertionError(f"The script has no reply for request {len(self.requests)}: give it more.")
        reply = self._left.popleft()
        return ModelReply(text=reply) if isinstance(reply, str) else reply


def error_reply(status: int, *, code: str | None = None, retry_after_ms: int | None = None) -> RawReply:
    """An error response as chat-completions servers send it."""
    headers = {"content-type": "application/json"}
    if retry_after_ms is not None:
        headers["retry-after-ms"] = str(retry_after_ms)
    error = {"message": f"scripted error {status}", "type": "scripted", "param": None, "code": code}
    return RawReply(status=status, headers=headers, pieces=(json.dumps({"error": error}).encode(),))
