"""Listeners that show a certificate which somebody else issued: what a plan refuses, warns of and shows first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mtlsctl.model.diagnostic import Diagnostic, Severity
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.plan import Risk
from mtlsctl.model.topology import ListenerId
from mtlsctl.planner.outside import NOT_VALID_NOW
from mtlsctl.planner.trust import foreign_doors, shown_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mtlsctl.model.release import Callee, Recipe
    from mtlsctl.model.topology import InstanceId, Listener, ServerCertificate, Service
    from mtlsctl.planner.outside import Scene

TWO_BELIEFS = "M2028"
NAME_STILL_CHECKED = "M2029"
SHOWS_ANOTHER = "M2113"
BELIEVED_BY_OTHERS = "M2114"

MEANINGS = {
    TWO_BELIEFS: "what a live listener shows and whether callers believe it by their machine change in one apply",
    NAME_STILL_CHECKED: "live callers check a name that the certificate to be shown does not present",
    SHOWS_ANOTHER: "a listener begins to show a certificate that somebody else issued, or another one",
    BELIEVED_BY_OTHERS: "callers begin to believe a service by CAs that are not ours, or by others than now",
}


class _Door(NamedTuple):
    """A listener that is to show a certificate of somebody else."""

    service: Service
    listener: Listener
    certificate: ServerCertificate

    @property
    def id(self) -> ListenerId:
        return ListenerId(self.service.name, self.listener.name)


def _doors(scene: Scene) -> Iterator[_Door]:
    for service in scene.inventory.services.values():
        for listener in service.listeners:
            if listener.server_certificate is not None:
                yield _Door(service, listener, listener.server_certificate)


def shown_findings(scene: Scene) -> Iterator[Diagnostic]:
    """What cannot be done without a gap, and chains that have ended, are about to, or have not begun."""
    for door in _doors(scene):
        yield from _date_findings(door, scene)
        yield from _names_still_checked(door, scene)
    yield from _two_beliefs(scene)


def _date_findings(door: _Door, scene: Scene) -> Iterator[Diagnostic]:
    """A chain is good as long as all of it. One that is live already is spoken of: other changes do not wait for it."""
    facts = [scene.facts[one] for one in door.certificate.chain]
    begins, ends = max(one.not_before for one in facts), min(one.not_after for one in facts)
    if begins <= scene.now < ends - door.service.certificate.renew_before:
        return
    is_valid = begins <= scene.now < ends
    if scene.now < begins:
        what = f"is not valid before {begins:%Y-%m-%d %H:%M}"
    else:
        what = f"{'ends' if is_valid else 'ended'} on {ends:%Y-%m-%d %H:%M}"
    yield Diagnostic(
        code=NOT_VALID_NOW,
        severity=Severity.WARNING if is_valid or _is_live(door, scene) else Severity.ERROR,
        message=f"{door.certificate.file} {what}: `{facts[0].shown}`",
        span=door.certificate.span,
        help="mtlsctl does not renew it: have it renewed where it was issued, and put the new chain in its place",
    )


def _is_live(door: _Door, scene: Scene) -> bool:
    recipes = (scene.live.get(instance) for instance in door.service.instances)
    served = (recipe.served(door.listener.name) for recipe in recipes if recipe is not None)
    return any(one is not None and one.shows == shown_by(door.certificate) for one in served)


def _names_still_checked(door: _Door, scene: Scene) -> Iterator[Diagnostic]:
    """Callers go over to a new name last, when every instance shows it; until then the old one has to be there too."""
    presented = scene.facts[door.certificate.chain[0]].names
    for name in sorted({callee.server_name for callee in _live_calls(door, scene)}):
        if not any(DnsId(name).matches(one) for one in presented):
            yield Diagnostic(
                code=NAME_STILL_CHECKED,
                message=f"live callers of {door.id} check the name `{name}`, which {door.certificate.file} does not "
                "present",
                span=door.certificate.span,
                help="show a certificate with both names, or give it a listener of its own at another port, let "
                "callers go over to that one, and take the first one out",
            )


def _live_calls(door: _Door, scene: Scene) -> Iterator[Callee]:
    """The door as live callers call it that are to go on doing so."""
    for caller in door.listener.callers:
        for instance in scene.inventory.services[caller.service].instances:
            recipe = scene.live.get(instance)
            callee = recipe.called(door.id) if recipe is not None else None
            if callee is not None:
                yield callee


def _two_beliefs(scene: Scene) -> Iterator[Diagnostic]:
    """A caller believes its machine or a file, never both: so one of the two certificates would be refused."""
    foreign = foreign_doors(scene.inventory, scene.live)
    reported: set[ListenerId] = set()
    for instance, recipe in scene.desired.items() if foreign else ():
        live = scene.live.get(instance)
        for callee in recipe.callees if live is not None else ():
            before = live.called(callee.listener) if live is not None and callee.listener in foreign else None
            if before is None or before.believes_system is callee.believes_system or callee.listener in reported:
                continue
            if _shows_another(callee, before, scene):
                reported.add(callee.listener)
                yield _refused(callee, scene)


def _shows_another(callee: Callee, before: Callee, scene: Scene) -> bool:
    """Whether some instance that is dialled shows something else than it is to show."""
    dialled = {one.instance for one in (*before.endpoints, *callee.endpoints)}
    return any(
        _shown_at(one, callee.listener, scene.live) != _shown_at(one, callee.listener, scene.desired)
        for one in dialled
        if one in scene.live and one in scene.desired
    )


def _shown_at(instance: InstanceId, listener: ListenerId, recipes: Mapping[InstanceId, Recipe]) -> object:
    served = recipes[instance].served(listener.listener)
    return None if served is None else served.shows


def _refused(callee: Callee, scene: Scene) -> Diagnostic:
    service = scene.inventory.services[callee.listener.service]
    listener = next(one for one in service.listeners if one.name == callee.listener.listener)
    shown = listener.server_certificate
    return Diagnostic(
        code=TWO_BELIEFS,
        message=f"{callee.listener} is to show another certificate, and its callers would believe "
        f"{'their machine' if callee.believes_system else 'what is declared'} from another moment on than it does",
        span=listener.span if shown is None else shown.span,
        notes=("a caller believes files or its machine, never both at a time",),
        help="do it in two applies: name the issuer's file in `servers_trust` while the certificate changes, and say "
        "`system` afterwards (or the reverse); or give it a listener of its own at another port",
    )


def shown_risks(scene: Scene) -> tuple[Risk, ...]:
    """What an approver should see first: what is shown from now on, and who is believed by whom."""
    return tuple(one for door in _doors(scene) for one in _risks(door, scene)) if scene.inventory.chains else ()


def _risks(door: _Door, scene: Scene) -> Iterator[Risk]:
    certificate, place = door.certificate, f"{door.id}:{door.listener.port}"
    hosts = [one.host for one in door.service.instances if not _shows(door, scene.live.get(one))]
    if hosts:
        ends = min(scene.facts[one].not_after for one in certificate.chain)
        yield Risk(
            code=SHOWS_ANOTHER,
            summary=f"{place} shows {certificate.file}, good until {ends:%Y-%m-%d}, with the key that somebody else "
            f"keeps at {certificate.key_path} on {', '.join(hosts)}",
            span=certificate.span,
        )
    callers = sorted(_believing_anew(door, scene))
    if callers:
        files = sorted({scene.inventory.certificates[one].file for one in certificate.trust})
        yield Risk(
            code=BELIEVED_BY_OTHERS,
            summary=f"{place} is to be believed by {', '.join(callers)} through "
            f"{', '.join(files) or 'what the machine believes'}: whoever can have a certificate for its names there "
            "can pass for it",
            span=certificate.span,
        )


def _shows(door: _Door, recipe: Recipe | None) -> bool:
    served = recipe.served(door.listener.name) if recipe is not None else None
    return served is not None and served.shows == shown_by(door.certificate)


def _believing_anew(door: _Door, scene: Scene) -> Iterable[str]:
    """The callers of which some instance is to believe it by something else than now."""
    for caller in door.listener.callers:
        for instance in scene.inventory.services[caller.service].instances:
            wanted, recipe = scene.desired[instance].called(door.id), scene.live.get(instance)
            known = recipe.called(door.id) if recipe is not None else None
            if wanted is not None and (known is None or _belief(known) != _belief(wanted)):
                yield caller.service
                break


def _belief(callee: Callee) -> tuple[object, ...]:
    return callee.policy, callee.believes_system
