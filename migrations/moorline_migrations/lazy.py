"""The public names of a package, each imported from its module on first use.

LangGraph takes a second to import and the OpenAI client half a second: a process that only reads settings need not
wait.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose public names are in `modules`, by module.

    Type checkers cannot read the table, so the package imports the same names under `TYPE_CHECKING`.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(homes), get, lambda: sorted({*vars(sys.modules[package]), *homes})
