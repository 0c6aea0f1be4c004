"""The types that a graph's own schemas name: what a strict reader may rebuild of its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langgraph.pregel import Pregel

_NEVER_NAMED = ("builtins", "typing", "typing_extensions")
"""Modules whose types stand for others, or are rebuilt anyway."""


def state_types(graph: Pregel[Any, Any, Any, Any]) -> frozenset[tuple[str, str]]:
    """The module and the name of each class that the schemas of the graph, of its nodes and of its subgraphs name,
    however deep."""
    found: set[tuple[str, str]] = set()
    met: dict[int, Any] = {}
    waiting = [schema for each in (graph, *_subgraphs(graph)) for schema in _schemas(each)]
    while waiting:
        annotation = waiting.pop()
        if id(annotation) in met:
            continue
        met[id(annotation)] = annotation  # kept, so that no other object gets its id
        if isinstance(annotation, type) and annotation.__module__ not in _NEVER_NAMED:
            found.add((annotation.__module__, annotation.__name__))
        waiting += _parts(annotation)
    return frozenset(found)


def _subgraphs(graph: Pregel[Any, Any, Any, Any]) -> Iterator[Any]:
    return (subgraph for _, subgraph in graph.get_subgraphs(recurse=True))


def _schemas(graph: Any) -> Iterator[Any]:
    for channel in graph.channels.values():
        yield getattr(channel, "ValueType", None)
        yield getattr(channel, "UpdateType", None)
    builder = getattr(graph, "builder", None)
    if builder is not None:
        yield from (builder.state_schema, builder.input_schema, builder.output_schema)
        yield from (node.input_schema for node in builder.nodes.values())


def _parts(annotation: Any) -> list[Any]:
    """The annotations inside an annotation: arguments of generic types, and fields of classes."""
    origin = get_origin(annotation)
    if origin is Literal:
        return []
    if origin is Annotated:
        return [annotation.__origin__]
    parts = [origin, *get_args(annotation)]
    for alias in ("__supertype__", "__value__"):  # of NewType, of `type X = …`
        parts.append(getattr(annotation, alias, None) if not isinstance(annotation, type) else None)
    if isinstance(annotation, type):
        parts += _fields(annotation)
    return parts


def _fields(kind: type) -> list[Any]:
    try:
        return list(get_type_hints(kind, localns=dict(vars(kind)), include_extras=True).values())
    except (NameError, TypeError, AttributeError):  # names that only type checkers know
        fields = getattr(kind, "model_fields", {})
        return [field.annotation for field in fields.values()] if isinstance(fields, dict) else []
