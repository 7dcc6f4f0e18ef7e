"""What a page points at is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([a-z_]+(?:/[a-zA-Z_.-]+)+)`")
_OURS = ("mtlsctl/", "tests/", "templates/", "scripts/", "inventories/calendar/calendar.yaml")


def names(paths: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def text_of(page: Path) -> str:
    return _FENCED.sub("", page.read_text("utf-8"))


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text_of(page))}


def broken_links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors_of(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [] == list(broken_links(page, text_of(page)))


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = ROOT / "README.md"
    text = "[a](docs/README.md) [b](docs/NOTHING.md) [c](#install) [d](#nothing) [e](docs/README.md#how-to) [f](../x)"
    assert ["docs/NOTHING.md", "#nothing", "../x"] == list(broken_links(page, text))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_file_of_ours_that_a_page_names_is_there(page: Path) -> None:
    named = [path for path in _CODE.findall(text_of(page)) if path.startswith(_OURS)]
    assert [] == [path for path in named if not (ROOT / path).exists()]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(text_of(index))}
    assert [] == [page for page in (ROOT / "docs").rglob("*.md") if page != index and page.resolve() not in linked]
