"""A scrape, as numbers."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """What a page of metrics says."""

    def __init__(self, page: str) -> None:
        self.page = page
        self._series = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def __getitem__(self, name: str) -> float:
        """The sum of a metric's series, whatever their labels."""
        return self.of(name)

    def of(self, name: str, **labels: str) -> float:
        """The sum of those of its series that have the labels."""
        asked = labels.items()
        return sum(value for (each, own), value in self._series.items() if each == f"moorline_{name}" and asked <= own)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._series}

    @property
    def labels(self) -> set[tuple[str, str]]:
        return {label for name, labels in self._series if name.startswith("moorline_") for label in labels}
