"""As for the other real processes: a failed test shows what they said."""

from tests.integration.conftest import loopback, pytest_runtest_makereport

__all__ = ["loopback", "pytest_runtest_makereport"]
