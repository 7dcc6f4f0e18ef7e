"""The Spring Boot applications of these tests: built once by Maven, kept outside the repository, started as Java does.

A build is named by the digest of its sources, so a changed line makes a new one and everything else finds the old.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import find_peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SOURCES = Path(__file__).with_name("applications")
VERSIONS = {"2.7": "boot-2.7", "3.5": "boot-3.5", "4.1": "boot-4.1"}
"""Minor versions of Spring Boot that an application is here for."""

MAIN_CLASS = "calendar.Application"
FAST_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx192m", "-Xshare:auto")

_CACHE = Path(os.environ.get("MTLSCTL_TESTS_CACHE") or Path.home() / ".cache" / "mtlsctl-tests")
"""Read once, since every test has a home of its own."""

_BUILD_SECONDS = 600
_ARCHIVE = "classes.jsa"
_SMALL_MAVEN = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"


class Unbuildable(Exception):
    """There is no JDK, no Maven, or no way to what the application is made of; the message says which."""


def application(version: str) -> Path:
    """The folder of a built application; skips the test with the reason, or fails it where peers are required."""
    try:
        return _built(version)
    except Unbuildable as error:
        reason = f"no Spring Boot {version} application here: {error}"
    if os.environ.get("MTLSCTL_REQUIRE_PEERS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def java_command(built: Path, *arguments: object) -> list[object]:
    """How the application is started."""
    archive = built / _ARCHIVE
    # One that does not fit the JVM is passed over.
    return _java(built, *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []), arguments=arguments)


def _java(built: Path, *options: str, arguments: Iterable[object]) -> list[object]:
    java = find_peer("java")
    assert java is not None
    return [java, *FAST_START, *options, "-cp", f"{built}/calendar.jar:{built}/lib/*", MAIN_CLASS, *arguments]


@cache
def _built(version: str) -> Path:
    source = SOURCES / VERSIONS[version]
    kept = _CACHE / f"{source.name}-{_digest(source)}"
    if find_peer("java") is None:
        raise Unbuildable("java is not installed")
    if not kept.is_dir():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with (_CACHE / f"{source.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several workers want the same one
            if not kept.is_dir():
                _build(source, kept)
    return kept


def _build(source: Path, kept: Path) -> None:
    for program in ("mvn", "javac"):
        if find_peer(program) is None:
            raise Unbuildable(f"{program} is not installed")
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix="build-") as folder:
        place = Path(folder) / "source"
        shutil.copytree(source, place)
        # What was fetched once is enough for the next change; only what is missing is asked for.
        said = _maven(place, "--offline") and _maven(place)
        if said:
            raise Unbuildable(said)
        target = place / "target"
        made = Path(folder) / "made"
        made.mkdir()
        (target / "calendar.jar").rename(made / "calendar.jar")
        (target / "lib").rename(made / "lib")
        made.rename(kept)
    _archive_classes(kept)


def _archive_classes(built: Path) -> None:
    """Keep the loaded classes of a first start, which halves what each later one costs (JEP 350)."""
    new = built / f"{_ARCHIVE}.new"
    arguments = ("--server.address=127.0.0.1", "--server.port=0", "--greeting=none")
    command = _java(built, f"-XX:ArchiveClassesAtExit={new}", arguments=arguments)
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "Started Application" in line:
                first.terminate()  # an end in good order, at which the archive is written
    if new.exists():
        new.rename(built / _ARCHIVE)


def _maven(place: Path, *options: str) -> str:
    """What Maven complained about, or nothing."""
    maven = find_peer("mvn")
    assert maven is not None
    command = [maven, "--quiet", "--batch-mode", "-Dmaven.test.skip=true", *options, "package"]
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env={**os.environ, "MAVEN_OPTS": f"{os.environ.get('MAVEN_OPTS', '')} {_SMALL_MAVEN}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"Maven was not done after {_BUILD_SECONDS} seconds"
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
    return "" if done.returncode == 0 else "\n".join(errors[:3]) or f"Maven ended with {done.returncode}"


def _digest(source: Path) -> str:
    whole = hashlib.sha256()
    for path in _files(source):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(source)} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:16]


def _files(source: Path) -> Iterator[Path]:
    return iter(sorted(path for path in source.rglob("*") if path.is_file()))
