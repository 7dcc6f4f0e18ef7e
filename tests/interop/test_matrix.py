"""Every kind of server and of caller with each other, in real processes that read the applied files as they are.

With MTLSCTL_UPDATE_GOLDEN=1, as `make interop` sets it, `docs/reference/interop.md` is written from what is seen;
otherwise the page has to say what is seen.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.peers import LET_IN, TURNED_AWAY, by_python, caller_context, get
from tests.interop.callers import TRY
from tests.interop.matrix import CALLERS, DOORS, MODELS, PEERS, SERVERS, TRIES, VERSIONS, Part, caller_name, expected
from tests.interop.page import PAGE, section, sections, with_section
from tests.interop.servers import START
from tests.interop.world import SIDE, STRANGER, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.peers import Program

IS_WRITING = bool(os.environ.get("MTLSCTL_UPDATE_GOLDEN"))

pytestmark = [pytest.mark.usefixtures("loopback"), *(pytest.mark.peer(name) for name in PEERS)]


@pytest.fixture(scope="module", params=MODELS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loopback: None) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp(request.param), request.param)
    world.apply()
    with all_up([program for kind in SERVERS for program in START[kind](world)]):
        yield world


@contextlib.contextmanager
def all_up(programs: list[Program]) -> Iterator[None]:
    """Start them side by side, since a JVM takes its time."""
    with contextlib.ExitStack() as running, ThreadPoolExecutor(len(programs)) as starting:
        for started in [starting.submit(program.__enter__) for program in programs]:
            running.push(started.result())
        yield


def test_who_is_declared_gets_in_and_everybody_else_is_refused(world: World) -> None:
    seen = {caller: TRY[caller](world) for caller in CALLERS}
    wrong = {
        (caller, tried): shown
        for caller, all_shown in seen.items()
        for tried, shown in all_shown.items()
        if shown.outcome != expected(world.model, tried)
    }
    assert wrong == {}
    assert all(set(TRIES) == all_shown.keys() for all_shown in seen.values())
    written = section(world.model, seen, world.reasons())
    if IS_WRITING:
        PAGE.write_text(with_section(PAGE.read_text("utf-8"), world.model, written, MODELS), "utf-8")
    assert written == sections(PAGE.read_text("utf-8"))[world.model]


def test_the_stranger_is_let_in_where_it_is_declared(world: World) -> None:
    shown = by_python(world.estate.current("callers", STRANGER), SIDE, SIDE, world.side)
    assert LET_IN == shown.outcome, shown


def test_a_double_shows_another_name_and_is_believed_but_for_that(world: World) -> None:
    """Only the name keeps callers from it: the same call without a look at the name gets an answer."""
    release = world.release("callers", caller_name("Python"))
    for door in DOORS:
        if door.part is Part.MISNAMED:
            context = caller_context(release, door.callee)
            context.check_hostname = False
            status, body = get(context, world.places[door], host=world.places[door].name)
            assert (200, door.service) == (status, body.strip())


def test_a_door_speaks_its_own_version_of_tls_and_no_other(world: World) -> None:
    current = world.estate.current("callers", caller_name("Python"))
    for door in DOORS:
        if door.part is Part.SERVER:
            for version, tls in VERSIONS.items():
                shown = by_python(current, door.callee, door.service, world.places[door], tls=(tls,))
                assert (LET_IN if version == door.version else TURNED_AWAY) == shown.outcome, (door, tls, shown)
