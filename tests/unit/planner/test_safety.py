"""What a plan refuses and what it shows first, each beside what it allows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.diagnostic import Severity
from mtlsctl.model.release import Recipe, ServedListener
from mtlsctl.model.topology import (
    AuthorityPolicy,
    Bind,
    ClientCertificate,
    ForwardIdentity,
    MovedHost,
    ProcessId,
    SshHost,
)
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.planner import safety
from mtlsctl.planner.plan import make_plan
from mtlsctl.planner.safety import (
    ADDRESS_OF_SOCKET_CHANGES,
    ALWAYS_FIT,
    CANNOT_ENFORCE,
    CANNOT_FORWARD,
    MEANINGS,
    NAME_BUDGET,
    NEEDS_RESTART,
    NEW_PLACEMENT,
    ONE_STORE,
    PORT_PASSES_ON,
    REFUSE_ALL,
    RUNTIME_CHANGES,
    SECOND_PORT,
    budget_findings,
)
from tests.support.estates import applied, apply, at, changed, door, estate, host, line, plan_of, service, without
from tests.support.runtimes import ABLE, NGINX, RUNTIMES
from tests.support.world import NOW, World, new_state

if TYPE_CHECKING:
    from mtlsctl.model.plan import Plan
    from mtlsctl.model.topology import InstanceId, Inventory


def codes(plan: Plan) -> list[str]:
    return [one.code for one in plan.refusals]


def plan_with(inventory: Inventory, **able: Any) -> Plan:
    """A first plan with an nginx that is able to do all but what is said."""
    nginx = replace(NGINX, enforcement=replace(ABLE, **able))
    return make_plan(inventory, new_state(), {**RUNTIMES, "nginx": nginx}, NOW)


def test_every_code_has_a_meaning() -> None:
    known = {code for name, code in vars(safety).items() if name.isupper() and re.fullmatch("M[0-9]{4}", str(code))}
    assert known == MEANINGS.keys()


def test_a_service_with_the_name_of_another_runtimes_process_is_refused() -> None:
    clash = estate(service("schedule", door("nginx")), service("nginx", runtime="node"))
    assert ["M2014"] == [one.code for one in plan_of(clash, World()).refusals]
    apart = estate(service("schedule", door("nginx")), service("nginx", runtime="node", hosts=("h2",)))
    assert () == plan_of(apart, World()).refusals


def test_a_host_whose_folder_moved_is_shown_first() -> None:
    moved = estate(*CALENDAR.services.values(), hosts=[host("h1", address="127.0.0.1", directory="/elsewhere")])
    (risk,) = plan_of(moved, applied(CALENDAR)).risks
    assert ("M2102", True) == (risk.code, "stays there" in risk.summary)


def test_a_host_that_is_reached_at_another_address_is_shown_though_no_file_changes() -> None:
    def reached(**more: Any) -> Inventory:
        return replace(
            CALENDAR, hosts={**CALENDAR.hosts, "h1": SshHost(**{"name": "h1", "address": "h1.test", **more})}
        )

    world = applied(reached())
    world.state = replace(world.state, hosts=reached().hosts)
    assert () == plan_of(reached(user="deploy", become=True), world).risks
    (risk,) = plan_of(reached(address="elsewhere.test"), world).risks
    assert ("M2107", True) == (risk.code, "h1 is at elsewhere.test now, not at h1.test: " in risk.summary)
    (risk,) = plan_of(reached(port=2222), world).risks
    assert "h1 is at h1.test port 2222 now" in risk.summary


def test_a_host_that_is_renamed_and_reached_elsewhere_is_shown_too() -> None:
    def named(name: str, address: str) -> Inventory:
        services = {
            one.name: replace(one, hosts=tuple(name if at == "h1" else at for at in one.hosts))
            for one in CALENDAR.services.values()
        }
        others = {at: one for at, one in CALENDAR.hosts.items() if at != "h1"}
        hosts = {**others, name: SshHost(name=name, address=address)}
        return replace(CALENDAR, services=services, hosts=hosts)

    world = applied(named("h1", "h1.test"))
    world.state = replace(world.state, hosts=named("h1", "h1.test").hosts)
    moved = (MovedHost(old="h1", new="z1", span=line(9)),)
    assert "M2107" not in [one.code for one in plan_of(replace(named("z1", "h1.test"), moved=moved), world).risks]
    assert "M2107" in [one.code for one in plan_of(replace(named("z1", "z1.test"), moved=moved), world).risks]


# --- what was found on hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("programs", "refused"),
    [
        ({}, []),
        ({"h1": {"nginx": "1.19.3"}}, ["M2042"]),
        ({"h1": {"nginx": "1.19.4"}}, []),
        ({"h2": {"nginx": "1.19.3"}}, []),
        ({"h1": {"node": "8.0.0"}}, []),
        ({"h1": {"nginx": "nobody knows"}}, []),
    ],
)
def test_a_program_that_was_found_too_old_is_refused_where_it_is(
    programs: dict[str, dict[str, str]], refused: list[str]
) -> None:
    plan = make_plan(estate(service("mail")), replace(new_state(), programs=programs), RUNTIMES, NOW)
    assert refused == codes(plan)


def test_what_is_refused_says_which_version_is_needed_and_how_to_look_again() -> None:
    state = replace(new_state(), programs={"h1": {"nginx": "1.18.0"}})
    (refusal,) = make_plan(estate(service("mail")), state, RUNTIMES, NOW).refusals
    assert "`mail` cannot be on h1: nginx there is 1.18.0" in refusal.message
    assert "1.19.4" in refusal.message
    assert refusal.help is not None
    assert refusal.help.endswith("mtlsctl hosts check h1")


# --- what a runtime can enforce -------------------------------------------------------------------------------------

CALENDAR = estate(service("schedule", door("mail")), service("mail"))


def test_a_listener_whose_runtime_cannot_choose_whom_to_trust_is_refused() -> None:
    (refusal,) = plan_with(CALENDAR, anchors=False).refusals
    assert (CANNOT_ENFORCE, line(20)) == (refusal.code, refusal.span)
    assert [] == codes(plan_with(CALENDAR))


def test_a_caller_need_not_choose_whom_to_let_in() -> None:
    assert [] == codes(plan_with(estate(service("mail")), anchors=False, separate_trust=False, refuse_all=False))


def test_one_store_for_both_directions_is_refused_when_a_callee_could_call_back() -> None:
    chain = estate(service("schedule", door("mail")), service("mail", door("social", port=8444)), service("social"))
    (refusal,) = plan_with(chain, separate_trust=False).refusals
    assert ONE_STORE == refusal.code
    assert "`schedule` is called by `mail` and could call it" in refusal.message
    assert [] == codes(plan_with(chain))


def test_one_store_is_enough_when_whoever_is_called_may_call_back() -> None:
    mutual = estate(service("schedule", door("mail")), service("mail", door("schedule", port=8444)))
    assert [] == codes(plan_with(mutual, separate_trust=False))


def test_one_store_is_refused_when_a_caller_of_one_door_could_call_another() -> None:
    doors = (door("mail"), replace(door("social", port=8444), name="admin"))
    two = estate(service("schedule", *doors), service("mail"), service("social"))
    said = sorted(one.message.partition(": ")[2] for one in plan_with(two, separate_trust=False).refusals)
    assert ["`mail` could call `admin` of `schedule` too", "`social` could call `main` of `schedule` too"] == said
    assert [] == codes(plan_with(two))


def test_a_door_for_nobody_is_refused_where_nobody_cannot_be_said() -> None:
    closed = estate(service("schedule", door()))
    (refusal,) = plan_with(closed, refuse_all=False).refusals
    assert (REFUSE_ALL, line(30)) == (refusal.code, refusal.span)
    assert [] == codes(plan_with(closed))
    assert [] == codes(plan_with(CALENDAR, refuse_all=False))


# --- the names of authorities in a handshake ------------------------------------------------------------------------


def recipe_with(names: int, length: int = 34) -> Recipe:
    """A door that trusts so many authorities; a common name of 34 characters takes 49 bytes."""
    caller = "s{:0>" + str(length - len("s.calendar CA g1")) + "}"
    trusted = frozenset(AuthorityId(caller.format(n), 1) for n in range(names))
    return Recipe(
        instance=at("schedule"),
        process=ProcessId("h1", "nginx"),
        runtime="nginx",
        runtime_digest="",
        root="",
        credential=CredentialId(at("schedule"), 1),
        server_names=("schedule.example.com",),
        listeners=(
            ServedListener(
                name="main",
                sockets=(),
                client_certificate=ClientCertificate.REQUIRED,
                protocols=("1.3",),
                callers=(),
                policy=PeerPolicy(anchors=trusted),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [(612, []), (613, [Severity.WARNING]), (1306, [Severity.WARNING]), (1307, [Severity.ERROR])],
    ids=["30,000 bytes less 12", "above 30,000", "64,000 less 6", "above 64,000"],
)
def test_names_above_30000_bytes_are_a_warning_and_above_64000_an_error(names: int, expected: list[Severity]) -> None:
    found = list(budget_findings(new_state(), recipe_with(names), line(1)))
    assert expected == [one.severity for one in found]
    assert {NAME_BUDGET} >= {one.code for one in found}


def test_so_few_names_fit_that_they_need_not_be_counted() -> None:
    assert [] == list(budget_findings(new_state(), recipe_with(ALWAYS_FIT, 64), line(1)))
    assert [] != list(budget_findings(new_state(), recipe_with(ALWAYS_FIT + 1, 64), line(1)))


def test_a_warning_refuses_nothing() -> None:
    many = [service(f"caller-with-a-long-name-{n:03}") for n in range(650)]
    plan = plan_of(estate(service("schedule", door(*(one.name for one in many))), *many), World())
    assert ([], [NAME_BUDGET]) == (codes(plan), [one.code for one in plan.warnings])


def test_names_that_fit_in_the_end_and_not_on_the_way_are_found_too() -> None:
    """While every caller rotates, the door trusts each of them twice."""
    many = [service(f"caller-{n:04}") for n in range(500)]
    inventory = estate(service("schedule", door(*(one.name for one in many))), *many)
    rotated = inventory
    for one in many:
        rotated = changed(rotated, one.name, authority=AuthorityPolicy(generation=2))
    world = applied(inventory)
    assert () == plan_of(inventory, world).warnings
    (warning,) = plan_of(rotated, world).warnings
    assert (NAME_BUDGET, line(20)) == (warning.code, warning.span)
    assert "trusts 1000 CAs" in warning.message


# --- changes without a gap ------------------------------------------------------------------------------------------


def test_a_live_service_cannot_change_its_runtime() -> None:
    refusals = plan_of(changed(CALENDAR, "schedule", runtime="node"), applied(CALENDAR)).refusals
    assert (RUNTIME_CHANGES, line(20)) in [(one.code, one.span) for one in refusals]


def test_a_service_that_is_not_live_may_have_any_runtime() -> None:
    assert [] == codes(plan_of(changed(CALENDAR, "schedule", runtime="node"), World()))


def test_a_service_may_move_to_another_host_with_another_runtime() -> None:
    moved = changed(CALENDAR, "schedule", runtime="node", hosts=("h2",))
    assert [] == codes(plan_of(moved, applied(CALENDAR)))


def test_a_live_port_cannot_be_bound_to_other_addresses() -> None:
    bound = changed(CALENDAR, "schedule", listeners=(door("mail", bind=Bind.HOST),))
    assert ADDRESS_OF_SOCKET_CHANGES in codes(plan_of(bound, applied(CALENDAR)))


def test_another_port_may_be_bound_to_other_addresses() -> None:
    bound = changed(CALENDAR, "schedule", listeners=(door("mail", port=9443, bind=Bind.HOST),))
    assert [] == codes(plan_of(bound, applied(CALENDAR)))


def test_an_address_that_a_live_port_is_bound_to_cannot_change() -> None:
    bound = changed(CALENDAR, "schedule", listeners=(door("mail", bind=Bind.HOST),))
    other = replace(bound, hosts={"h1": host("h1", address="127.0.0.9")})
    assert ADDRESS_OF_SOCKET_CHANGES in codes(plan_of(other, applied(bound)))
    assert [] == codes(plan_of(replace(CALENDAR, hosts=other.hosts), applied(CALENDAR)))


# --- ports that pass on ---------------------------------------------------------------------------------------------

PAIR = estate(service("schedule", door("mail")), service("social", door("mail", port=9443)), service("mail"))


def port_of(inventory: Inventory, name: str, port: int, **more: Any) -> Inventory:
    return changed(inventory, name, listeners=(door("mail", port=port),), **more)


def test_a_port_does_not_pass_from_a_service_to_another_program_in_one_apply() -> None:
    node = changed(PAIR, "social", runtime="node")
    swapped = port_of(port_of(node, "schedule", 7443), "social", 8443)
    (refusal,) = plan_of(swapped, applied(node)).refusals
    assert PORT_PASSES_ON == refusal.code
    assert "port 8443 of h1 is served by `schedule`" in refusal.message


def test_a_port_passes_on_in_two_applies() -> None:
    node = changed(PAIR, "social", runtime="node")
    world = applied(node)
    freed = port_of(node, "schedule", 7443)
    apply(freed, world)
    assert [] == codes(plan_of(port_of(freed, "social", 8443), world))


def test_the_port_of_a_removed_service_is_not_taken_in_the_same_apply() -> None:
    taken = port_of(changed(without(PAIR, "schedule"), "social", runtime="nginx"), "social", 8443)
    node = changed(PAIR, "social", runtime="node")
    assert [PORT_PASSES_ON] == codes(plan_of(changed(taken, "social", runtime="node"), applied(node)))


def test_two_services_of_one_program_may_share_a_port_by_name() -> None:
    assert [] == codes(plan_of(port_of(PAIR, "social", 8443), applied(PAIR)))


def test_two_services_of_one_program_do_not_share_a_name_on_a_port_even_for_a_moment() -> None:
    world = applied(PAIR)
    shared = port_of(PAIR, "social", 8443)
    renamed = changed(shared, "schedule", names=service("x", names=["new.example.com"]).names)
    handed_on = changed(renamed, "social", names=PAIR.services["schedule"].names)
    assert PORT_PASSES_ON in codes(plan_of(handed_on, world))


def test_a_port_does_not_pass_from_one_listener_of_a_service_to_another() -> None:
    renamed = changed(PAIR, "schedule", listeners=(door("mail", name="api"),))
    assert [PORT_PASSES_ON] == codes(plan_of(renamed, applied(PAIR)))


def test_the_same_port_of_another_host_is_another_port() -> None:
    apart = port_of(changed(PAIR, "social", hosts=("h2",), runtime="node"), "social", 8443)
    assert [] == codes(plan_of(apart, applied(PAIR)))


# --- risks ----------------------------------------------------------------------------------------------------------


def test_a_key_on_a_host_for_the_first_time_is_a_risk_and_no_refusal() -> None:
    plan = plan_of(changed(CALENDAR, "mail", hosts=("h1", "h2", "h3")), applied(CALENDAR))
    (risk,) = plan.risks
    assert (NEW_PLACEMENT, "mail gets a key on h2, h3 for the first time", line(20)) == (
        risk.code,
        risk.summary,
        risk.span,
    )
    assert [] == codes(plan)


def test_a_renewal_and_a_rotation_put_no_key_anywhere_new() -> None:
    later = plan_of(CALENDAR, applied(CALENDAR), NOW + timedelta(days=1800))
    assert () == later.risks
    assert later.certificates


def test_refusals_are_in_the_order_of_the_file() -> None:
    first, second = (replace(service(name, door()), span=None) for name in ("zoo", "ant"))
    zoo, ant = (
        replace(one, listeners=(replace(one.listeners[0], span=line(number)),))
        for one, number in ((first, 12), (second, 7))
    )
    plan = plan_with(estate(zoo, replace(ant, listeners=(replace(ant.listeners[0], port=9443),))), refuse_all=False)
    assert [line(7), line(12)] == [one.span for one in plan.refusals]


# --- what a listener asks for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [ClientCertificate.OPTIONAL, ClientCertificate.NONE])
def test_a_mode_that_the_runtime_cannot_enforce_is_refused(mode: ClientCertificate) -> None:
    inventory = estate(service("schedule", door("mail", client_certificate=mode)), service("mail"))
    assert [] == codes(plan_with(inventory))
    unable = frozenset(ClientCertificate) - {mode}
    assert [CANNOT_ENFORCE] == codes(plan_with(inventory, client_certificate=unable))


def test_a_door_that_asks_nobody_needs_nothing_that_refuses_somebody() -> None:
    asks = estate(service("schedule", door()), service("mail", door("schedule", port=1)))
    assert [REFUSE_ALL] == codes(plan_with(asks, refuse_all=False))
    assert [ONE_STORE] == codes(plan_with(asks, separate_trust=False))[:1]
    asks_nobody = estate(
        service("schedule", door(client_certificate=ClientCertificate.NONE)),
        service("mail", door("schedule", port=1, client_certificate=ClientCertificate.NONE)),
    )
    assert [] == codes(plan_with(asks_nobody, refuse_all=False, separate_trust=False, anchors=False))


def test_a_form_of_forwarding_that_the_runtime_has_not_is_refused_with_its_reason() -> None:
    inventory = estate(service("schedule", door("mail", forward_identity=ForwardIdentity.RFC9440)), service("mail"))
    assert [] == codes(plan_with(inventory))
    headers = frozenset({ForwardIdentity.HEADERS})
    reason = ((ForwardIdentity.RFC9440, "there is no variable"),)
    (refused,) = plan_with(inventory, forward_identity=headers, cannot_forward=reason).refusals
    assert (CANNOT_FORWARD, "there is no variable") == (refused.code, refused.help)
    (refused,) = plan_with(inventory, forward_identity=headers).refusals
    assert "it can: headers" == refused.help


def test_forwarding_is_one_release_at_the_door_and_nobody_elses_affair() -> None:
    plain = estate(service("schedule", door("mail")), service("mail"))
    forwarding = changed(plain, "schedule", listeners=(door("mail", forward_identity=ForwardIdentity.HEADERS),))
    for before, after in ((plain, forwarding), (forwarding, plain)):
        plan = plan_of(after, applied(before))
        assert ["schedule"] == [step.id.instance.service for step in plan.steps]
        assert ((), ()) == (plan.access, plan.risks)


# --- programs that read once ----------------------------------------------------------------------------------------

ONCE, WATCHING = (("style", "once"),), (("style", "watching"),)


def with_spring(settings: tuple[tuple[str, str], ...]) -> Inventory:
    return estate(
        service("schedule", door("mail"), runtime="spring", settings=settings), service("mail", runtime="node")
    )


@pytest.mark.parametrize("settings", [ONCE, WATCHING])
def test_a_first_release_is_read_at_a_start(settings: tuple[tuple[str, str], ...]) -> None:
    plan = plan_of(with_spring(settings), World())
    assert {at("schedule")} == {step.id.instance for step in plan.steps if step.needs_restart}


@pytest.mark.parametrize(("settings", "restarted"), [(ONCE, {at("schedule")}), (WATCHING, set())])
def test_a_new_certificate_needs_a_restart_where_it_is_not_watched(
    settings: tuple[tuple[str, str], ...], restarted: set[InstanceId]
) -> None:
    inventory = with_spring(settings)
    rotated = changed(inventory, "mail", authority=AuthorityPolicy(generation=2))
    plan = plan_of(rotated, applied(inventory))
    assert {at("schedule"), at("mail")} == {step.id.instance for step in plan.steps}
    assert restarted == {step.id.instance for step in plan.steps if step.needs_restart}
    assert [NEEDS_RESTART] * len(restarted) == [one.code for one in plan.risks]


def test_what_is_no_certificate_is_not_watched() -> None:
    inventory = with_spring(WATCHING)
    narrowed = changed(inventory, "schedule", listeners=(door("mail", protocols=("1.3",)),))
    (risk,) = plan_of(narrowed, applied(inventory)).risks
    assert (NEEDS_RESTART, line(20)) == (risk.code, risk.span)
    assert "restart it on h1" in risk.summary


def test_what_a_program_calls_with_is_never_watched() -> None:
    both = estate(
        service("schedule", door("mail"), runtime="spring", settings=WATCHING),
        service("mail", door("schedule", port=9443), runtime="node"),
    )
    rotated = changed(both, "mail", authority=AuthorityPolicy(generation=2))
    assert NEEDS_RESTART in [one.code for one in plan_of(rotated, applied(both)).risks]


def test_a_program_with_one_port_cannot_move_to_another() -> None:
    inventory = with_spring(WATCHING)
    moved = changed(inventory, "schedule", listeners=(door("mail", port=9443),))
    (refusal,) = plan_of(moved, applied(inventory)).refusals
    assert (SECOND_PORT, True) == (refusal.code, "one at a time" in refusal.message)
    assert [] == codes(plan_of(moved, World()))
    nginx = changed(CALENDAR, "schedule", listeners=(door("mail", port=9443),))
    assert [] == codes(plan_of(nginx, applied(CALENDAR)))
