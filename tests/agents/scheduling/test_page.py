"""docs/scheduling.md is true: its catalogue can be imported."""

import re
from pathlib import Path

from moorline_agents.scheduling.catalogue_file import Catalogue

PAGE = Path(__file__).parents[3] / "docs" / "scheduling.md"


def test_the_catalogue_of_the_page_is_one() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    catalogue = Catalogue.of_yaml(text)
    assert [*catalogue.providers] == ["Dr. Weber", "Training room"]
    assert Catalogue.of_yaml(catalogue.to_yaml()) == catalogue
