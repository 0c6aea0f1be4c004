"""The names under which services and methods are played: a record may use some that no agent or tool can have."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

from moorline_agents.control import NAMES, check_name

_LONGEST_AGENT = 50
_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_TOOL = 64


def agent_name(service: str) -> str:
    """The service's own name if an agent can have it, or else one made of it; never the same for two services."""
    try:
        check_name(service)
    except ValueError:
        return _made_of(service, _LONGEST_AGENT)
    return service


def tool_name(method: str) -> str:
    """The method's own name if a tool can have it, or else one made of it; never the same for two methods."""
    return method if _TOOL.fullmatch(method) and method not in NAMES else _made_of(method, _LONGEST_TOOL)


def _made_of(name: str, longest: int) -> str:
    mark = sha256(name.encode()).hexdigest()[:12]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    letters = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_")
    return f"{letters[: longest - len(mark) - 1]}_{mark}"
