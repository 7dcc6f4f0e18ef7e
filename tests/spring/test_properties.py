"""What the quoting filter writes, read by Java's own loader and by Spring's, which also replaces placeholders."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.render.quoting import Untrusted, Unwritable, spring
from tests.conftest import find_peer
from tests.integration.estate import LOOPBACK, Estate
from tests.integration.peers import Place, Program
from tests.properties.test_injection import HOSTILE
from tests.spring.built import VERSIONS, application, java_command
from tests.spring.programs import ask
from tests.support.patience import ENDED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADER = Path(__file__).with_name("LoadProperties.java")
MORE = (
    "pa$$w0rd",
    "a$",
    "{x}",
    "$ {x}",
    "$\\{x}",
    "a,b",
    "\\u0041",
    "\U0001f600",
    "@name@",
    "[0]",
    "=",
    ":",
    "  two  ",
)


def written(text: str) -> str | None:
    try:
        return str.__str__(spring(Untrusted(text)))
    except Unwritable:
        return None


VALUES = {
    f"value.v{number}": (text, quoted)
    for number, text in enumerate(dict.fromkeys((*HOSTILE, *MORE)))
    if (quoted := written(text)) is not None
}


def write_values(file: Path) -> Path:
    file.write_text("".join(f"{key}={quoted}\n" for key, (_, quoted) in VALUES.items()), "ascii")
    return file


def test_most_values_can_be_written_and_what_spring_would_replace_cannot() -> None:
    texts = {text for text, _ in VALUES.values()}
    assert {"pa$$w0rd", "\U0001f600", "a b", "\\", "#"} <= texts
    assert {"${host}", "${jndi:ldap://x}", "a\nb", "\u2028", ""}.isdisjoint(texts)


@pytest.mark.peer("javac")
def test_java_reads_each_value_as_it_was(tmp_path: Path) -> None:
    file = write_values(tmp_path / "application.properties")
    done = subprocess.run(
        [str(find_peer("java")), LOADER, file], capture_output=True, text=True, check=True, timeout=ENDED_SECONDS
    )
    lines = (line.split(" ") for line in done.stdout.splitlines())
    assert {key: text for key, (text, _) in VALUES.items()} == {read(key): read(value) for key, value in lines}


def read(units: str) -> str:
    return bytes.fromhex(units).decode("utf-16-be")


@pytest.fixture(params=VERSIONS)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An application that imported the values, without TLS."""
    file = write_values(tmp_path / "values.properties")
    place = Place("localhost", LOOPBACK, Estate(tmp_path / "estate").free_port(LOOPBACK))
    options = (f"--server.address={LOOPBACK}", f"--server.port={place.port}", f"--spring.config.import=file:{file}")
    argv = java_command(application(request.param), *options)
    with Program("values", argv, tmp_path / "log", at=[(place.address, place.port)]):
        yield place


@pytest.mark.peer("java")
def test_spring_reads_each_value_as_it_was(running: Place) -> None:
    seen = {key: ask(running, "/property", {"name": key}) for key in VALUES}
    assert {key: (200, text) for key, (text, _) in VALUES.items()} == seen
