"""A service gets another name on a host over SSH: its key and its certificate stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.fleet import needs_a_fleet
from tests.integration.ssh_stage import Stage, on

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_a_fleet()


def test_a_renamed_service_keeps_its_key_and_its_certificate(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage", "web1") as stage:
        schedule = {
            "runtime": "nginx",
            "hosts": ["web1"],
            "names": ["schedule.example.com"],
            "listeners": [{"name": "main", "port": stage.port, "bind": "host", "callers": ["mail"]}],
        }
        inventory = {
            "version": 1,
            "name": "calendar",
            "hosts": {"web1": stage.host("web1")},
            "services": {"schedule": schedule, "mail": {"runtime": "pem", "hosts": ["web1"]}},
        }
        estate = stage.estate(inventory)
        estate.good("apply", "--yes")
        held = "sha256sum /etc/mtlsctl/{}/keys/*.key /etc/mtlsctl/{}/releases/*/tls.crt | cut -d ' ' -f 1 | sort -u"
        before = on(stage["web1"], held.format("schedule", "schedule"))
        inventory |= {
            "services": {"agenda": schedule, "mail": {"runtime": "pem", "hosts": ["web1"]}},
            "moved": [{"service": "schedule", "to": "agenda"}],
        }
        estate.write(inventory)
        assert "step=issue" not in estate.good("apply", "--yes").err
        assert before == on(stage["web1"], held.format("agenda", "agenda"))
        assert not stage["web1"].path("/etc/mtlsctl/schedule").exists()
        assert not estate.good("plan", "-o", "json").json["has_changes"]
