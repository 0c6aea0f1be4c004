"""Labels of metrics: each value is a series that Prometheus keeps, so that there must not be any number of them."""

from __future__ import annotations

import re

MOST = 50
"""Different values of a label, in each process."""

OTHER = "other"
"""What stands for all further ones, and for what is no name."""

_NAME = re.compile(r"[\w.:/@+-]{1,80}", re.ASCII)


class Names:
    """Names that somebody else gives: models by their servers, tools by graphs."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def label(self, name: str) -> str:
        """The name, or `OTHER`."""
        if name in self._seen:
            return name
        if len(self._seen) >= MOST or not _NAME.fullmatch(name):
            return OTHER
        self._seen.add(name)
        return name
