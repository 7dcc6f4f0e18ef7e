from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.estate import Estate, make_estate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Estate:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return make_estate(tmp_path / "estate", monkeypatch, capsys)
