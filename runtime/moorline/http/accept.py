"""Content negotiation: which of the offered types a request prefers."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.http.errors import NotAcceptable


def preferred(accept: str, offered: Sequence[str]) -> str:
    """The offered type that the header `Accept` rates highest, the first of several. Raises `NotAcceptable` if it takes
    none. An empty header takes all."""
    ranges = [_rated(each) for each in accept.split(",") if each.strip()]
    if not ranges:
        return offered[0]
    ratings = {media: _rating(media, ranges) for media in offered}
    best = max(offered, key=ratings.__getitem__)
    if ratings[best] <= 0:
        raise NotAcceptable(f"This path answers with {' or '.join(offered)} only.")
    return best


def _rated(media_range: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in media_range.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _rating(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The rating by the most specific range that fits."""
    for fitting in (media, f"{media.partition('/')[0]}/*", "*/*"):
        found = [rating for name, rating in ranges if name == fitting]
        if found:
            return max(found)
    return 0.0
