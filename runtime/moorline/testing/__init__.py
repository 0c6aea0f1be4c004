"""For tests of your own agents: a model that gives scripted answers, in process or as a small HTTP server."""

from moorline.testing.script import Script, error_reply
from moorline.testing.server import serve
from moorline_agents.transport import Call, ModelReply, ModelRequest, RawReply, Rules, rule_client

__all__ = [
    "Call",
    "ModelReply",
    "ModelRequest",
    "RawReply",
    "Rules",
    "Script",
    "error_reply",
    "rule_client",
    "serve",
]
