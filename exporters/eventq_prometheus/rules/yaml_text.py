"""YAML for people: expressions and long sentences as blocks, lists indented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["dump"]


class _Dumper(yaml.SafeDumper):
    """YAML for people: expressions and long sentences as blocks, lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists too."""
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > 90 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _represent_text)


def dump(document: Mapping[str, Any]) -> str:
    """Return a document as YAML, its keys in their own order."""
    text: str = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=130)  # pyright: ignore[reportUnknownMemberType]
    return text
