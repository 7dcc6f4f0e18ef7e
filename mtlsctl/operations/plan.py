"""What would change: the inventory against the state, and nothing else."""

# ruff: noqa: PLC0415  hosts are looked at only where that was asked for

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtlsctl.errors import UnsafePlan
from mtlsctl.operations.outside import facts_of_outside
from mtlsctl.planner.plan import make_plan

if TYPE_CHECKING:
    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Inventory
    from mtlsctl.operations.refresh import Refreshed
    from mtlsctl.operations.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with what it was made from."""

    loaded: LoadedInventory
    state: State
    plan: Plan
    refreshed: Refreshed | None = None
    """What the hosts hold, where they were asked; the plan sees to what is not as it was put there."""

    @property
    def inventory(self) -> Inventory:
        return self.loaded.inventory


def plan(workspace: Workspace, *, look: bool = False) -> Planned:
    """Make a plan; opens no key, and no host or network unless it is to `look` at them.

    Raises UnsafePlan when it holds refusals.
    """
    loaded = workspace.load()
    refreshed = None
    with workspace.store(loaded.inventory.name) as store:
        state = store.snapshot()
        if look:
            from mtlsctl.operations.refresh import refresh

            refreshed = refresh(workspace, loaded.inventory, state, store)
            state = refreshed.state
        outside = facts_of_outside(loaded.inventory, state, store)
    made = make_plan(loaded.inventory, state, workspace.runtimes, workspace.clock(), outside)
    refuse_unsafe(made)
    return Planned(loaded=loaded, state=state, plan=made, refreshed=refreshed)


def refuse_unsafe(made: Plan) -> None:
    """Raise UnsafePlan with every refusal of a plan, if it has any."""
    if made.refusals:
        raise UnsafePlan(made.refusals)
