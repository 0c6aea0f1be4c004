"""Services and providers as people name them; an unknown name is refused with the names that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.tools import ToolRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from moorline_agents.scheduling.repository import Provider, Service


def named_service(services: Sequence[Service], name: str) -> Service:
    """The service of this name, whatever its case and spacing."""
    found = next((service for service in services if folded(service.name) == folded(name)), None)
    if found is None and services:
        raise ToolRefused(f"There is no service {name!r}.", code="unknown_service", services=_names(services))
    if found is None:
        raise ToolRefused("No services are offered yet, so nothing can be booked.", code="no_services")
    return found


def offering(service: Service, provider: str | None) -> tuple[Provider, ...]:
    """The providers who offer the service: all of them, or the one with this name."""
    if provider is None:
        return service.providers
    found = tuple(p for p in service.providers if folded(p.name) == folded(provider))
    if not found:
        raise ToolRefused(
            f"Nobody called {provider!r} offers {service.name}.",
            code="unknown_provider",
            service=service.name,
            providers=_names(service.providers),
        )
    return found


def folded(name: str) -> str:
    """A name as people compare it."""
    return " ".join(name.casefold().split())


def _names(named: Iterable[Service | Provider]) -> list[str]:
    return [each.name for each in named]
