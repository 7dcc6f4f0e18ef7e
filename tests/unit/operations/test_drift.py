"""What is said of a difference."""

from __future__ import annotations

from mtlsctl.model.topology import InstanceId
from mtlsctl.operations.drift import Drift, DriftKind


def test_names_of_files_that_a_host_says_are_shown_up_to_a_bound() -> None:
    drift = Drift(
        kind=DriftKind.RELEASE_ALTERED,
        host="web1",
        instances=(InstanceId("mail", "web1"),),
        path="releases",
        files=tuple(f"{one:04}" + "x" * 4_000 for one in range(2_000)),
    )
    message = drift.message(str)
    assert len(message) < 3_000
    assert "1990 more" in message
