"""Components: each has its own history of migrations, in a folder of numbered .sql files."""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cache
from importlib.resources import files

from moorline_migrations.errors import ConfigurationError
from moorline_migrations.identifiers import require_name
from moorline_migrations.versions import Version, read


@dataclass(frozen=True)
class Migrations:
    """The tables of one component, made by the numbered .sql files of a package.

    `Migrations("billing", package="clinic.billing.sql")` names the folder `sql` of the package `clinic.billing`; the
    folder needs no `__init__.py`. See `versions.read` and docs/migrations.md for what a file may declare.
    `ConfigurationError` for a name that is not a plain lower-case identifier.
    """

    component: str
    _: KW_ONLY
    package: str

    def __post_init__(self) -> None:
        require_name(self.component, "a component")

    @property
    def versions(self) -> tuple[Version, ...]:
        """Every version this code knows, oldest first; `ConfigurationError` if the package or its files are wrong."""
        return _versions(self)

    @property
    def newest(self) -> int:
        """The number of the newest version."""
        return self.versions[-1].number


CORE = Migrations("moorline", package="moorline_migrations.sql.moorline")
"""Conversations: everything that the checkpointer and the turns need."""

SCHEDULING = Migrations("scheduling", package="moorline_migrations.sql.scheduling")
"""Appointments: what the scheduling agent books in."""

SHIPPED = (CORE, SCHEDULING)
"""What a runtime with the shipped agents needs."""


def distinct(components: Iterable[Migrations]) -> tuple[Migrations, ...]:
    """Each component once, in the order given; `ConfigurationError` if two packages claim the same name."""
    found: dict[str, Migrations] = {}
    for each in components:
        other = found.setdefault(each.component, each)
        if other != each:
            raise ConfigurationError(
                f"The component {each.component!r} is claimed by two packages, {other.package} and {each.package}; "
                "rename one of them before it is migrated."
            )
    return tuple(found.values())


@cache
def _versions(component: Migrations) -> tuple[Version, ...]:
    try:
        folder = files(component.package)
        found = read(folder, component=component.component)
    except (ImportError, TypeError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"The migrations of component {component.component!r} cannot be read from package "
            f"{component.package!r}: {error}"
        ) from error
    if not found:
        raise ConfigurationError(
            f"The package {component.package!r} of component {component.component!r} holds no file such as "
            "0001_first.sql; name the package that has the numbered files."
        )
    return found
