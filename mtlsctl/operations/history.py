"""What was live when, from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.model.topology import InstanceId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.store.port import JournalEntry


def previous_releases(entries: Iterable[JournalEntry]) -> dict[InstanceId, str]:
    """For each instance the release that was live when the last operation that changed it began."""
    now: dict[InstanceId, tuple[str | None, str]] = {}
    before: dict[InstanceId, str] = {}
    for entry in entries:
        live = entry.detail.get("live")
        if entry.event != "switched" or not isinstance(live, list):
            continue
        for service, host, release in live:
            instance = InstanceId(service, host)
            known = now.get(instance)
            if known is not None and known[0] != entry.operation and known[1] != release:
                before[instance] = known[1]
            now[instance] = (entry.operation, release)
    return {instance: release for instance, release in before.items() if release != now[instance][1]}
