"""Small promises of the values that all floors share."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlsctl.model.credential import AuthorityId, CredentialId, common_name_of_authority
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.model.plan import Op, StepId, Wave
from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented, Probe, Verdict
from mtlsctl.model.release import Endpoint
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import MAIN, AuthorityPolicy, Edge, InstanceId, ListenerId, ProcessId
from mtlsctl.model.trust import name_bytes
from tests.support.estates import applied, apply, at, changed, door, estate, host, line, plan_of, service
from tests.support.world import NOW, World

# --- names ----------------------------------------------------------------------------------------------------------


def test_things_are_called_what_people_call_them() -> None:
    assert "mail@web1" == str(InstanceId("mail", "web1"))
    assert "web1/nginx" == str(ProcessId("web1", "nginx"))
    assert "mail CA g2" == str(AuthorityId("mail", 2))
    assert "mail@web1#3" == str(CredentialId(InstanceId("mail", "web1"), 3))
    assert "mail@web1/extend" == str(StepId(InstanceId("mail", "web1"), Wave.EXTEND))


def test_the_only_door_of_a_service_needs_no_name() -> None:
    assert "mail" == str(ListenerId("mail", MAIN))
    assert "mail:admin" == str(ListenerId("mail", "admin"))
    assert "social -> mail:admin" == str(Edge("social", ListenerId("mail", "admin")))


def test_the_common_name_of_an_authority_says_of_which_service_estate_and_generation() -> None:
    assert "mail.calendar CA g2" == common_name_of_authority("calendar", AuthorityId("mail", 2))


def test_the_longest_common_name_of_an_authority_fits() -> None:
    """RFC 5280 appendix A.1 allows 64 characters; 40 of the service and 16 of the estate leave two digits."""
    assert 64 == len(common_name_of_authority("e" * 16, AuthorityId("s" * 40, 99)))


def test_waves_are_in_their_order() -> None:
    assert ["extend", "activate", "withdraw", "remove"] == [str(wave) for wave in sorted(Wave)]


@pytest.mark.parametrize("length", [1, 19, 64])
def test_the_bytes_of_a_name_in_a_certificate_request_are_counted_right(length: int) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * length)])
    assert len(name.public_bytes()) + 2 == name_bytes("x" * length)


# --- secrets --------------------------------------------------------------------------------------------------------

SECRET = Secret(b"correct horse")


def test_a_secret_shows_itself_nowhere() -> None:
    shown = [repr(SECRET), str(SECRET), f"{SECRET}", f"{SECRET!r}", repr([SECRET]), repr({"key": SECRET})]
    assert not [text for text in shown if "horse" in text]
    assert "***" == repr(SECRET)


def test_a_secret_is_not_serialised_copied_hashed_or_iterated() -> None:
    attempts: tuple[Any, ...] = (pickle.dumps, copy.copy, copy.deepcopy, hash, iter, bytes, len)
    for attempt in attempts:
        with pytest.raises(TypeError):
            attempt(SECRET)
    assert not hasattr(SECRET, "__dict__")


def test_secrets_are_compared_by_what_they_hold() -> None:
    assert Secret(b"correct horse") == SECRET
    assert Secret(b"battery staple") != SECRET
    assert b"correct horse" != SECRET


def test_a_secret_is_revealed_by_name_only() -> None:
    assert b"correct horse" == SECRET.reveal()


# --- diagnostics ----------------------------------------------------------------------------------------------------


def test_diagnostics_sort_by_file_line_column_and_code() -> None:
    def found(file: str, line: int, column: int, code: str = "M1001") -> Diagnostic:
        return Diagnostic(code=code, message="", span=Span(file, line, column, column + 1))

    ordered = [
        Diagnostic(code="M9", message=""),
        found("a", 2, 9),
        found("a", 10, 1, "M1001"),
        found("a", 10, 1, "M1002"),
        found("a", 10, 2),
        found("b", 1, 1),
    ]
    turned = ordered[::-1]
    assert ordered == sorted(turned, key=lambda one: one.order)


def test_a_place_is_written_as_compilers_do() -> None:
    assert "calendar.yaml:7:5" == str(line(7))


# --- probes ---------------------------------------------------------------------------------------------------------


def outcome(expected: Expectation, observed: Observation) -> Outcome:
    probe = Probe(
        listener=ListenerId("mail", MAIN),
        endpoint=Endpoint(at("mail"), "127.0.0.1", 1),
        server_name="mail.example.com",
        protocol="1.3",
        presented=Presented.NO_CERTIFICATE,
        caller=None,
        expected=expected,
    )
    return Outcome(probe=probe, observed=observed)


@pytest.mark.parametrize("expected", Expectation)
@pytest.mark.parametrize("observed", Observation)
def test_only_what_was_seen_as_declared_is_as_declared(expected: Expectation, observed: Observation) -> None:
    verdict = outcome(expected, observed).verdict
    assert (verdict is Verdict.AS_DECLARED) == (observed.value == expected.value)
    contradicts = observed in (Observation.ALLOWED, Observation.REFUSED) and observed.value != expected.value
    assert (verdict is Verdict.CONTRADICTION) == contradicts


def test_what_was_not_tried_is_never_a_pass() -> None:
    for expected in Expectation:
        assert Verdict.NOT_PROBED is outcome(expected, Observation.NOT_PROBED).verdict
        assert Verdict.INCONCLUSIVE is outcome(expected, Observation.UNREACHABLE).verdict


# --- topology and plan ----------------------------------------------------------------------------------------------

CALENDAR = estate(
    service("schedule", door("mail", "social"), door("mail", name="admin", port=9443), hosts=["h2", "h1"]),
    service("mail"),
    service("social"),
)


def test_the_edges_of_an_inventory_are_in_its_order_with_their_places() -> None:
    assert [("mail -> schedule", line(4)), ("social -> schedule", line(6)), ("mail -> schedule:admin", line(4))] == [
        (str(edge), span) for edge, span in CALENDAR.edges()
    ]


def test_an_instance_is_a_service_on_a_host() -> None:
    assert ["schedule@h2", "schedule@h1", "mail@h1", "social@h1"] == [str(one) for one in CALENDAR.instances()]


def test_where_a_thing_is_written_does_not_make_it_another_thing() -> None:
    schedule = CALENDAR.services["schedule"]
    assert schedule == replace(schedule, span=line(99))
    assert schedule != replace(schedule, hosts=("h1",))


@pytest.mark.parametrize(
    ("seen_as", "expected"), [(None, "/out/h1"), ("/", ""), ("/srv/", "/srv")], ids=["", "as the root", "elsewhere"]
)
def test_the_root_of_rendered_paths_has_no_slash_at_its_end(seen_as: str | None, expected: str) -> None:
    assert expected == host("h1", seen_as=seen_as).root


def test_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        CALENDAR.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        plan_of(CALENDAR, World()).estate = "other"  # type: ignore[misc]


def test_a_plan_without_steps_that_destroys_a_key_has_changes() -> None:
    world = applied(CALENDAR)
    rotated = changed(CALENDAR, "mail", authority=AuthorityPolicy(generation=2))
    apply(rotated, world)
    apply(rotated, world, NOW + timedelta(days=61))
    plan = plan_of(rotated, world, NOW + timedelta(days=90))
    assert ([Op.REMOVE], ()) == ([one.op for one in plan.authority_changes], plan.steps)
    assert plan.has_changes
