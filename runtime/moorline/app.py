"""The app of a command: the `Moorline` that a team names as `module:name`, or one with the agents that ship."""

from __future__ import annotations

import logging
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from moorline.errors import ConfigurationError, MoorlineError
from moorline.runtime import Moorline

logger = logging.getLogger("moorline.app")

EXAMPLE = "clinic.app:moorline"


def find_app(name: str | None) -> Moorline:
    """The unopened `Moorline` called `name`, such as `clinic.app:moorline`; without a name, one with the agents that
    ship.

    Modules are looked for in the current directory first. Raises `ConfigurationError`; an error that the module itself
    raised is logged with its traceback.
    """
    if name is None:
        return Moorline()
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        raise ConfigurationError(f"{name!r} is not an app; write its module, a colon and its name, as in {EXAMPLE}.")
    found = _attribute(_module(module), attribute, name)
    if not isinstance(found, Moorline):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ConfigurationError(f"{name} is {what}; name a Moorline, such as `moorline = Moorline(agents=[…])`.")
    if found.is_open:
        raise ConfigurationError(f"{name} is already open; the command opens it itself, so remove the `async with`.")
    return found


def _module(module: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except MoorlineError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"There is no module {error.name!r} in {here}, and none is installed; run the command where it is."
            ) from None
        logger.exception("The app's module %s raised when it was imported:", module)
        raise ConfigurationError(
            f"The app's module {module!r} cannot be imported ({type(error).__name__}: {error}); its traceback is above."
        ) from error


def _attribute(module: Any, attribute: str, name: str) -> Any:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        ours = sorted(each for each, value in vars(module).items() if isinstance(value, Moorline))
        hint = f"it has {', '.join(ours)}" if ours else "and no Moorline by another name"
        raise ConfigurationError(f"{name}: the module has no {attribute!r}, {hint}.") from None
