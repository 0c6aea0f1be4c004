"""HTML for notebooks. All that these functions are given is text, and is escaped: no word of a person, a model or a
device becomes a tag, an attribute, a formula or a line of its own.

It reads well where styles are taken out, as code hosts do.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from moorline_migrations.plain import lines

_LEFT = ' style="text-align: left; vertical-align: top"'


def escaped(text: str) -> str:
    """The text, with its lines, as it can stand between tags or in an attribute."""
    return escape(lines(text)).replace("\n", "<br>")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, note: str = "") -> str:
    """A table with a head, and perhaps a note below it."""
    head = "".join(f"<th{_LEFT}>{escaped(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td{_LEFT}>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    below = f"<p>{escaped(note)}</p>" if note else ""
    return _outer(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}")


def fields(values: Mapping[str, str], *, above: str = "") -> str:
    """A table with a line for each value, perhaps with a text above it."""
    rows = "".join(
        f"<tr><th{_LEFT}>{escaped(name)}</th><td{_LEFT}>{escaped(value)}</td></tr>" for name, value in values.items()
    )
    said = f"<p>{escaped(above)}</p>" if above else ""
    return _outer(f"{said}<table><tbody>{rows}</tbody></table>")


def image(source: str, *, alt: str) -> str:
    """A picture with a text that says the same."""
    return _outer(f'<img src="{escape(source)}" alt="{escape(lines(alt))}">')


def _outer(inner: str) -> str:
    """Notebooks would set what stands between two dollar signs as a formula."""
    return f'<div class="tex2jax_ignore mathjax_ignore">{inner}</div>'
