"""Names are the conventions', as far as these have one."""

from types import ModuleType

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import db_attributes, error_attributes

from moorline.telemetry import conventions


def test_names_are_those_of_the_conventions() -> None:
    ours = {value for name, value in vars(conventions).items() if name.isupper() and "." in value}
    stable = _names_in(db_attributes) | _names_in(error_attributes)
    shared = {name for name in ours if name.startswith(("db.", "error."))}
    assert shared <= stable
    # Still developed in a repository of their own; this is the last state that was published as a package.
    gen_ai = {name for name in ours if name.startswith("gen_ai.")}
    assert gen_ai <= _names_in(gen_ai_attributes)
    assert {name.split(".")[0] for name in ours} == {"db", "error", "gen_ai", "moorline"}


def _names_in(module: ModuleType) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
