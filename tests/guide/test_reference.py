"""docs/reference is what the code says."""

import importlib.util
from types import ModuleType

import pytest

from .pages import ROOT


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/make_reference.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_what_the_code_says(tool: ModuleType) -> None:
    """`make reference` writes it; a page that nothing makes has no place there."""
    written = {page.name: page.read_text() for page in (ROOT / "docs" / "reference").iterdir()}
    made = tool.pages()
    assert sorted(made) == sorted(written)
    for name, text in made.items():
        assert text == written[name], f"docs/reference/{name}: run `make reference`"


@pytest.mark.parametrize(("table", "name"), [("FIELDS", "waited_ms"), ("ARGUMENTS", "data_type"), ("ENVIRONMENT", "EVENTQ_URL")])
def test_what_nothing_describes_is_an_error(tool: ModuleType, table: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new field, argument or variable cannot reach users without a word."""
    monkeypatch.delitem(getattr(tool, table), name)
    with pytest.raises(tool.Undescribed, match=name):
        tool.pages()
