"""Small inventories in few words, and worlds in which they were applied."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtlsctl.model.diagnostic import Span
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.plan import StepId, Wave
from mtlsctl.model.topology import (
    Caller,
    CertificateRequest,
    DirectoryHost,
    InstanceId,
    Inventory,
    KeyAlgorithm,
    Listener,
    RequestedKey,
    Service,
)
from mtlsctl.planner.plan import make_plan
from tests.support.runtimes import RUNTIMES
from tests.support.world import NOW, World

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from mtlsctl.model.plan import Plan, Step
    from mtlsctl.model.release import Recipe


def at(service: str, host: str = "h1") -> InstanceId:
    return InstanceId(service, host)


def line(number: int) -> Span:
    return Span("calendar.yaml", number, 5, 9)


def callers(*names: str) -> tuple[Caller, ...]:
    """Each on a line of its own, which is as long as its name."""
    return tuple(Caller(service=name, span=line(len(name))) for name in names)


def door(*names: str, port: int = 8443, name: str = "main", **more: Any) -> Listener:
    return Listener(name=name, port=port, callers=callers(*names), span=line(30), **more)


def service(
    name: str, *doors: Listener, hosts: Iterable[str] = ("h1",), names: Iterable[str] = (), **more: Any
) -> Service:
    """On host h1 with nginx, named `<name>.example.com`, unless something else is said."""
    known = tuple(DnsId(one) for one in names) or (DnsId(f"{name}.example.com"),)
    more.setdefault("runtime", "nginx")
    return Service(name=name, hosts=tuple(hosts), names=known, listeners=doors, span=line(20), **more)


def host(name: str, **more: Any) -> DirectoryHost:
    return DirectoryHost(**{"name": name, "directory": f"/out/{name}", **more})


def request(
    text: str, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, *, key: str | None = None
) -> CertificateRequest:
    """Checked; the SHA-256 of its file is its text, and so is its key's unless another one is given."""
    asked = RequestedKey(algorithm, f"key of {text if key is None else key}")
    return CertificateRequest(path=f"requests/{text}.csr", der=text.encode(), sha256=text, asked=asked, span=line(40))


def estate(*services: Service, hosts: Iterable[DirectoryHost] = ()) -> Inventory:
    """The hosts that the services name are made up, those that are given are taken as they are."""
    given = {one.name: one for one in hosts}
    named = {name: given.get(name, host(name, address=f"127.0.0.{name[1:]}")) for one in services for name in one.hosts}
    return Inventory(name="calendar", hosts=named, services={one.name: one for one in services}, digest="0" * 64)


def changed(inventory: Inventory, name: str, **changes: Any) -> Inventory:
    """The same estate with one service that differs."""
    service = replace(inventory.services[name], **changes)
    return replace(inventory, services={**inventory.services, name: service}, hosts=_hosts(inventory, service))


def _hosts(inventory: Inventory, service: Service) -> dict[str, Any]:
    more = {name: host(name, address=f"127.0.0.{name[1:]}") for name in service.hosts}
    return {**more, **inventory.hosts}


def without(inventory: Inventory, name: str) -> Inventory:
    return replace(inventory, services={key: one for key, one in inventory.services.items() if key != name})


def plan_of(inventory: Inventory, world: World, now: datetime = NOW) -> Plan:
    return make_plan(inventory, world.state, RUNTIMES, now)


def apply(inventory: Inventory, world: World, now: datetime = NOW, *, fails: Collection[StepId] = ()) -> Plan:
    """Plan and do it, in the plan's order; what fails blocks what waits for it."""
    plan = plan_of(inventory, world, now)
    assert () == plan.refusals
    world.refactor(inventory)
    world.issue(plan, now)
    lost: set[StepId] = set()
    for step in plan.steps:
        if step.id in fails or step.waits_for & lost:
            lost.add(step.id)
        else:
            world.publish(step)
    world.end()
    return plan


def applied(inventory: Inventory, now: datetime = NOW) -> World:
    world = World()
    apply(inventory, world, now)
    return world


def steps_of(plan: Plan) -> dict[str, Step]:
    """By `service@host/wave`."""
    return {str(step.id): step for step in plan.steps}


def waits(plan: Plan, step: str) -> set[str]:
    return {str(one) for one in steps_of(plan)[step].waits_for}


def recipe(plan: Plan, service: str, wave: Wave, host: str = "h1") -> Recipe:
    step = steps_of(plan)[str(StepId(at(service, host), wave))]
    assert step.recipe is not None
    return step.recipe
