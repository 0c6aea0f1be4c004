"""What MCP servers give, as JSON that a model can be shown. Pictures and other bytes are named, not told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    TextContent,
    TextResourceContents,
)

from moorline_agents.tools import ToolRefused
from moorline_agents.values import MAX_CHARACTERS

_MOST_PARTS = 200


def result_of(given: CallToolResult | InputRequiredResult) -> Any:
    """The result of a call: what it gave as JSON, else its text, else its parts. Raises `ToolRefused` if the server
    says that the call failed."""
    if isinstance(given, InputRequiredResult):
        raise ToolRefused("The tool asks for more than it can be told here; it was not run.", code="mcp_error")
    parts = [_part(part) for part in given.content[:_MOST_PARTS]]
    if given.is_error:
        raise ToolRefused(_text(parts) or "The tool failed and did not say why.", code="mcp_error")
    if given.structured_content is not None:
        return given.structured_content
    return _text(parts)


def _text(parts: Sequence[str]) -> str:
    # One more than is kept, so that a longer text is known to have been cut.
    return "\n".join(parts)[: MAX_CHARACTERS + 1]


def _part(part: Any) -> str:
    match part:
        case TextContent():
            return part.text
        case ImageContent() | AudioContent():
            return _named(part.mime_type, part.data)
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return f"[{resource.uri}]\n{resource.text}"
        case EmbeddedResource(resource=BlobResourceContents() as resource):
            return f"[{resource.uri}] {_named(resource.mime_type, resource.blob)}"
        case _:
            kind = str(getattr(part, "type", "something"))
            return f"[{kind}: {getattr(part, 'uri', '')} {getattr(part, 'name', '')}]"


def _named(mime_type: str | None, data: str) -> str:
    """What stands for bytes, which came in base64."""
    return f"[{mime_type or 'bytes'}, {len(data) * 3 // 4:,} bytes, not shown]"
