"""The table of what works with what has every cell, and in none of them is a failure."""

from __future__ import annotations

from tests.integration.peers import LET_IN
from tests.interop.matrix import CALLERS, MODELS, SERVERS, VERSIONS, Try, expected
from tests.interop.page import CASES, GETS_IN, HEAD, IS_REFUSED, PAGE, cells

CELLS = [
    (model, server, tls, caller)
    for model in MODELS
    for server in SERVERS
    for tls in VERSIONS.values()
    for caller in CALLERS
]


def test_the_table_has_every_cell_and_no_other() -> None:
    assert sorted(CELLS) == sorted(cells())


def test_every_cell_says_that_all_went_as_it_has_to() -> None:
    doors = {tls: door for door, tls in VERSIONS.items()}
    for (model, server, tls, caller), marks in cells().items():
        wanted = [expected(model, Try(server, doors[tls], case)) for case in CASES]
        right = "".join(GETS_IN if one == LET_IN else IS_REFUSED for one in wanted)
        assert right == marks, (model, server, tls, caller)


def test_the_page_begins_as_it_is_written() -> None:
    assert PAGE.read_text("utf-8").startswith(HEAD)
