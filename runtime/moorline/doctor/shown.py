"""What an examination found, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from moorline.doctor.finding import Finding
from moorline_migrations.plain import one_line


def healthy(found: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(each.state != "fail" for each in found)


def as_json(found: Sequence[Finding]) -> str:
    """One object: whether all is well, and the findings."""
    return json.dumps({"ok": healthy(found), "checks": [asdict(each) for each in found]}, indent=2)


def as_lines(found: Sequence[Finding]) -> list[str]:
    """A line for each finding, and one below it for what to do."""
    width = max(len(each.name) for each in found)
    lines = []
    for each in found:
        lines.append(one_line(f"{each.state:7}  {each.name:{width}}  {each.seen}"))
        if each.todo:
            lines.append(one_line(f"{'':7}  {'':{width}}  -> {each.todo}"))
    return lines
