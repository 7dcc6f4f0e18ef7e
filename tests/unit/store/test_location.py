from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mtlsctl.errors import StateError, UsageError
from mtlsctl.store import codes
from mtlsctl.store.location import create_state, open_state, state_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:.mtlsctl/state.db", "/repository/.mtlsctl/state.db"),
        ("sqlite:/var/lib/state.db", "/var/lib/state.db"),
        ("sqlite:a:b.db", "/repository/a:b.db"),
    ],
)
def test_a_sqlite_url_is_a_path_seen_from_the_project(url: str, path: str) -> None:
    assert state_path(url, base=Path("/repository")) == Path(path)


@pytest.mark.parametrize("url", ["postgresql://user:hunter2@host/db", "postgres:host"])
def test_postgresql_is_refused_by_name_without_its_password(url: str) -> None:
    with pytest.raises(StateError, match="not built yet") as caught:
        state_path(url, base=Path("/repository"))
    assert caught.value.code == "M3005"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "sqlite", "sqlite:", "state.db", "mysql://u:hunter2@h/d", "hunter2", "sqlite:a\x00b"]
)
def test_what_is_no_url_of_a_state_is_a_usage_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        state_path(url, base=Path("/repository"))
    assert caught.value.code == "M3006"
    assert "hunter2" not in str(caught.value)


def test_a_state_is_made_once_and_then_opened(tmp_path: Path) -> None:
    path = create_state("sqlite:.mtlsctl/state.db", base=tmp_path, lineage="abc", estate="calendar")
    assert path == tmp_path / ".mtlsctl" / "state.db"
    with closing(open_state("sqlite:.mtlsctl/state.db", base=tmp_path, lineage="abc", estate="calendar")) as store:
        assert store.snapshot().serial == 1
    with pytest.raises(StateError) as caught:
        create_state("sqlite:.mtlsctl/state.db", base=tmp_path, lineage="abc", estate="calendar")
    assert caught.value.code == "M3009"


def test_opening_never_makes_a_state(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        open_state("sqlite:state.db", base=tmp_path, lineage="abc", estate="calendar")
    assert caught.value.code == "M3001"
    assert list(tmp_path.iterdir()) == []


def test_reading_a_state_loads_no_cryptography(tmp_path: Path) -> None:
    create_state("sqlite:state.db", base=tmp_path, lineage="abc", estate="calendar")
    program = (
        "import sys\nfrom pathlib import Path\nfrom mtlsctl.store.keysource import resolve_key_source\n"
        "from mtlsctl.store.location import open_state\nassert 'sqlite3' not in sys.modules\n"
        "source = resolve_key_source({}, lineage='abc')\n"
        "where = Path(sys.argv[1])\n"
        "store = open_state('sqlite:state.db', base=where, lineage='abc', estate='calendar', key_source=source)\n"
        "store.snapshot(), store.check(), store.close()\n"
        "loaded = {'cryptography', 'ssl', 'jinja2', 'pydantic', 'subprocess'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])


def test_every_code_has_a_meaning() -> None:
    named = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}
    assert named == set(codes.MEANINGS)


def test_the_home_of_nobody_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        state_path("sqlite:~no-such-user-here/state.db", base=Path("/repository"))
    assert caught.value.code == codes.UNKNOWN_URL
    assert state_path("sqlite:~/state.db", base=Path("/repository")) == Path.home() / "state.db"
