"""What `-v` and `-vv` add on standard error: where things were found, and each step and probe. Never content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.cli.views.page import columns, escaped
from mtlsctl.model.topology import DirectoryHost
from mtlsctl.operations.progress import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mtlsctl.model.plan import Plan
    from mtlsctl.model.probe import Outcome
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Host, InstanceId
    from mtlsctl.operations.progress import ProcessEvent


def rows_text(rows: Iterable[Sequence[str]]) -> str:
    """Aligned lines; empty for no rows."""
    return "".join(f"{line}\n" for line in columns([[escaped(cell) for cell in row] for row in rows], indent=""))


def hosts_text(hosts: Mapping[str, Host]) -> str:
    """Each host and how it is reached."""
    return rows_text(
        ["host", name, host.directory if isinstance(host, DirectoryHost) else f"{host.address}:{host.port} over SSH"]
        for name, host in sorted(hosts.items())
    )


def steps_text(plan: Plan) -> str:
    """Each step of a plan with the certificate that it presents and what it waits for."""
    return rows_text(
        [
            "step",
            str(step.id),
            str(step.process),
            "no release" if step.recipe is None else f"presents {step.recipe.credential}",
            f"waits for {', '.join(sorted(map(str, step.waits_for)))}" if step.waits_for else "",
        ]
        for step in plan.steps
    )


def releases_text(events: Iterable[ProcessEvent], state: State) -> str:
    """Each instance whose process was switched, with the release that is live after it."""
    return rows_text(
        ["done", f"{instance}/{event.wave}", str(event.process), _release(state, instance), "; ".join(event.notes)]
        for event in events
        if event.status is Status.DONE
        for instance in event.instances
    )


def _release(state: State, instance: InstanceId) -> str:
    live = state.live.get(instance)
    return "nothing live" if live is None else f"live: release {live.receipt.release}"


def probes_text(outcomes: Iterable[Outcome]) -> str:
    """Each probe: who called which door of which host with what, and what was seen."""
    return rows_text(
        [
            "probe",
            f"{one.probe.caller or '-'} ({one.probe.presented.value})",
            f"{one.probe.listener} at {one.probe.endpoint.instance}",
            f"{one.probe.endpoint.address}:{one.probe.endpoint.port}",
            f"TLS {one.probe.protocol}",
            one.observed.value,
            one.evidence,
        ]
        for one in outcomes
    )
