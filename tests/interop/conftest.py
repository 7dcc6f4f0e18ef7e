"""Real processes, as in the integration tests."""

from __future__ import annotations

from tests.integration.conftest import loopback, pytest_runtest_makereport

__all__ = ["loopback", "pytest_runtest_makereport"]
