"""Every handshake that has to succeed and every one that has to fail."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from mtlsctl.model.probe import Expectation, Presented
from mtlsctl.model.topology import Authorize, ClientCertificate, ListenerId, TrustModel
from mtlsctl.planner.probes import ALL_PAIRS, make_probes
from tests.support.estates import at, door, estate, service

if TYPE_CHECKING:
    from mtlsctl.model.probe import Probe
    from mtlsctl.model.topology import Inventory

CALENDAR = estate(
    service("schedule", door("mail"), hosts=["h1", "h2"]),
    service("mail", hosts=["h1", "h3"]),
    service("social", door("schedule", port=9443, protocols=("1.3",))),
    service("news"),
)


def tried(inventory: Inventory, listener: str, expected: Expectation) -> Counter[str]:
    """What is shown at a listener, by service or by kind."""
    return Counter(
        probe.caller.service if probe.presented is Presented.DELIVERED and probe.caller else probe.presented.value
        for probe in make_probes(inventory).probes
        if probe.listener.service == listener and probe.expected is expected
    )


def test_each_instance_of_a_declared_caller_is_tried_at_each_instance_with_each_protocol() -> None:
    assert {"mail": 2 * 2 * 2} == tried(CALENDAR, "schedule", Expectation.ALLOWED)
    assert {"schedule": 2} == tried(CALENDAR, "social", Expectation.ALLOWED)


def test_every_undeclared_service_and_every_bad_certificate_is_tried() -> None:
    kinds = {"no certificate": 4, "foreign CA": 4, "expired": 4, "wrong key usage": 4}
    once = {"plain HTTP": 2, "undeclared CA": 2}
    assert {"social": 4, "news": 4, **kinds, **once} == tried(CALENDAR, "schedule", Expectation.REFUSED)


def test_a_service_is_not_tried_at_its_own_door() -> None:
    assert [] == [
        probe
        for probe in make_probes(CALENDAR).probes
        if probe.presented is Presented.DELIVERED and probe.caller and probe.caller.service == probe.listener.service
    ]


def test_only_the_protocols_of_a_listener_are_tried_and_any_other_is_to_be_refused() -> None:
    probes = [probe for probe in make_probes(CALENDAR).probes if probe.listener.service == "social"]
    assert {"1.3"} == {one.protocol for one in probes if one.presented is not Presented.OTHER_PROTOCOL}
    assert [("1.2", Expectation.REFUSED)] == [
        (one.protocol, one.expected) for one in probes if one.presented is Presented.OTHER_PROTOCOL
    ]


def test_what_needs_no_certificate_is_tried_once_at_each_listener_of_each_instance() -> None:
    for quick in (False, True):
        for kind in (Presented.PLAINTEXT, Presented.OTHER_CA):
            tried_at = [one.endpoint for one in make_probes(CALENDAR, quick=quick).probes if one.presented is kind]
            assert ["schedule@h1", "schedule@h2", "social@h1"] == sorted(str(place.instance) for place in tried_at)


def test_declared_calls_come_first() -> None:
    expected = [probe.expected for probe in make_probes(CALENDAR).probes]
    assert sorted(expected) == expected
    assert Expectation.ALLOWED is expected[0]


def test_quick_leaves_out_what_needs_a_crafted_certificate() -> None:
    shown = {probe.presented for probe in make_probes(CALENDAR, quick=True).probes}
    crafted = {Presented.FOREIGN_CA, Presented.EXPIRED, Presented.WRONG_USAGE}
    assert set(Presented) - crafted == shown


def test_a_crafted_certificate_imitates_a_declared_caller_and_without_one_the_server() -> None:
    alone = estate(service("schedule", door()), service("mail"))
    for inventory, imitated in ((CALENDAR, at("mail")), (alone, at("schedule"))):
        crafted = {
            probe.caller
            for probe in make_probes(inventory).probes
            if probe.presented is Presented.FOREIGN_CA and probe.listener.service == "schedule"
        }
        assert {imitated} == crafted


def test_no_certificate_is_nobodys() -> None:
    nobody = [one.caller for one in make_probes(CALENDAR).probes if one.presented is Presented.NO_CERTIFICATE]
    assert {None} == set(nobody)


def test_a_door_is_asked_for_under_the_first_name_at_its_port() -> None:
    inventory = estate(service("schedule", door("mail"), names=["a.example.com", "b.example.com"]), service("mail"))
    probes = make_probes(inventory).probes
    assert {("a.example.com", 8443)} == {(one.server_name, one.endpoint.port) for one in probes}


def test_each_listener_of_a_service_is_tried_with_its_own_callers() -> None:
    doors = (door("mail", name="api", port=1), door("social", name="admin", port=2))
    inventory = estate(service("schedule", *doors), service("mail"), service("social"))
    allowed = {
        (probe.listener, probe.caller)
        for probe in make_probes(inventory).probes
        if probe.expected is Expectation.ALLOWED
    }
    assert {
        (ListenerId("schedule", "api"), at("mail")),
        (ListenerId("schedule", "admin"), at("social")),
    } == allowed


# --- doors that let in anybody --------------------------------------------------------------------------------------


def with_door(mode: ClientCertificate, *callers: str) -> Inventory:
    return estate(service("schedule", door(*callers, client_certificate=mode)), service("mail"), service("news"))


def test_an_optional_door_is_to_let_in_who_shows_nothing_and_to_refuse_every_wrong_certificate() -> None:
    inventory = with_door(ClientCertificate.OPTIONAL, "mail")
    assert {"mail": 2, "no certificate": 2} == tried(inventory, "schedule", Expectation.ALLOWED)
    wrong = {"foreign CA": 2, "expired": 2, "wrong key usage": 2, "news": 2}
    assert {**wrong, "plain HTTP": 1, "undeclared CA": 1} == tried(inventory, "schedule", Expectation.REFUSED)


def test_a_door_that_asks_for_no_certificate_is_to_let_in_everybody_without_one() -> None:
    inventory = with_door(ClientCertificate.NONE, "mail")
    assert {"mail": 2, "no certificate": 2} == tried(inventory, "schedule", Expectation.ALLOWED)
    assert {"plain HTTP": 1, "undeclared CA": 1} == tried(inventory, "schedule", Expectation.REFUSED)


def test_a_door_for_anybody_and_nobody_in_particular_is_tried_too() -> None:
    assert {"no certificate": 2} == tried(with_door(ClientCertificate.NONE), "schedule", Expectation.ALLOWED)


def test_an_estate_of_open_doors_alone_leaves_nothing_out() -> None:
    for mode in (ClientCertificate.NONE, ClientCertificate.OPTIONAL):
        alone = estate(service("schedule", door("mail", client_certificate=mode)), service("mail"))
        for quick in (False, True):
            plan = make_probes(alone, quick=quick)
            assert 0 == plan.left_out
            kinds = {probe.presented for probe in plan.probes if probe.expected is Expectation.REFUSED}
            crafted = kinds - {Presented.PLAINTEXT, Presented.OTHER_CA}
            assert bool(crafted) == (mode is ClientCertificate.OPTIONAL and not quick)


def test_any_member_is_to_get_in_whose_certificate_is_for_clients() -> None:
    """One that only listens would be refused for its key usage, which says nothing about whom the door lets in."""
    model = TrustModel.SHARED_CA
    inventory = estate(
        service("schedule", door("mail", authorize=Authorize.ANY_MEMBER), trust=model),
        service("mail", trust=model),
        service("news", trust=model),
        service("archive", door("news", port=9443), trust=model),
        service("other"),
    )
    assert {"mail": 2, "news": 2} == tried(inventory, "schedule", Expectation.ALLOWED)
    refused = tried(inventory, "schedule", Expectation.REFUSED)
    assert (0, 2) == (refused["archive"], refused["other"])


# --- above 10,000 ---------------------------------------------------------------------------------------------------


def crowd(size: int) -> Inventory:
    """A ring: each service listens and is called by the one before it."""
    names = [f"s{number}" for number in range(size)]
    before = dict(zip(names, [names[-1], *names], strict=False))
    return estate(*(service(name, door(before[name], port=1000 + place)) for place, name in enumerate(names)))


def of_doors(probes: tuple[Probe, ...]) -> Counter[str]:
    return Counter(probe.listener.service for probe in probes if probe.expected is Expectation.REFUSED)


def test_up_to_ten_thousand_every_pair_is_tried() -> None:
    """Of n services: n declared, n (n - 2) undeclared and 4 n crafted, with two protocols; and 2 n without any."""
    plan = make_probes(crowd(68))
    assert (2 * 68 * (1 + 66 + 4 + 1), 0) == (len(plan.probes), plan.left_out)
    assert len(plan.probes) <= ALL_PAIRS


def test_above_ten_thousand_all_declared_calls_and_an_even_sample_are_tried() -> None:
    size = 200
    plan = make_probes(crowd(size))
    allowed = [probe for probe in plan.probes if probe.expected is Expectation.ALLOWED]
    assert 2 * size == len(allowed)
    assert 2 * size * (1 + size - 2 + 4 + 1) == len(plan.probes) + plan.left_out
    assert ALL_PAIRS / 2 < len(plan.probes) <= ALL_PAIRS
    shares = of_doors(plan.probes)
    assert size == len(shares)
    assert max(shares.values()) - min(shares.values()) <= 2


def test_a_sample_is_made_of_real_probes_in_their_order() -> None:
    everything = make_probes(crowd(69), at_most=2 * ALL_PAIRS).probes
    sample = make_probes(crowd(69), at_most=2000).probes
    known = {probe: place for place, probe in enumerate(everything)}
    places = [known[probe] for probe in sample]
    assert {6} == {after - before for before, after in pairwise(places[2 * 2 * 69 :])}


def test_a_sample_tries_everybody_and_every_kind_somewhere() -> None:
    sample = [one for one in make_probes(crowd(196)).probes if one.expected is Expectation.REFUSED]
    assert {at(f"s{number}") for number in range(196)} == {one.caller for one in sample if one.caller}
    assert set(Presented) - {Presented.OTHER_PROTOCOL} == {one.presented for one in sample}


def test_a_sample_is_the_same_each_time() -> None:
    assert make_probes(crowd(120)) == make_probes(crowd(120))


def test_more_declared_calls_than_that_are_all_tried() -> None:
    plan = make_probes(crowd(69), at_most=100)
    assert 2 * 69 == sum(1 for probe in plan.probes if probe.expected is Expectation.ALLOWED)
    assert sum(1 for probe in plan.probes if probe.expected is Expectation.REFUSED) > 0


def test_a_thousand_services_take_no_memory_for_what_is_left_out() -> None:
    inventory = crowd(1000)
    tracemalloc.start()
    try:
        plan = make_probes(inventory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * 1000 * 1004 == len(plan.probes) + plan.left_out
    assert peak < 64 * 1024 * 1024
