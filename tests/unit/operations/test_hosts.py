"""What is made of what a host says of itself: what is wrong there, and what is not held against it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.cli.views.hosts import check_document, check_text, hosts_text, place_of
from mtlsctl.cli.views.page import Page
from mtlsctl.deliver.facts import HostFacts
from mtlsctl.errors import DeliveryError, UsageError
from mtlsctl.model.program import is_older, version_text
from mtlsctl.model.topology import Bind, SshHost
from mtlsctl.operations.hosts import HostReport, _report, chosen
from tests.support.estates import applied, door, estate, host, service
from tests.support.runtimes import RUNTIMES

if TYPE_CHECKING:
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import Inventory

WEB = SshHost(name="h1", address="10.0.0.1", user="deploy", become=True)


def facts(**changes: Any) -> HostFacts:
    values: dict[str, Any] = {
        "kernel": "Linux 6.1.0 x86_64",
        "system": "Debian GNU/Linux 12",
        "uid": 0,
        "has_systemd": True,
        "free_bytes": 10 * 1024**3,
        "clock_off": timedelta(seconds=0.1),
        "round_trip": timedelta(seconds=0.02),
        "tools": (("openssl", "OpenSSL 3.0.17 1 Jul 2025"), ("tar", "tar (GNU tar) 1.34")),
        "programs": (("nginx", "nginx version: nginx/1.22.1"),),
        "places": frozenset(),
    }
    return HostFacts(**{**values, **changes})


def inventory(**more: Any) -> Inventory:
    made = estate(service("schedule", door("mail", port=8443, **more)), service("mail", runtime="node"))
    made.hosts["h1"] = WEB  # type: ignore[index]
    return made


def report(state: State | None = None, *, of: Inventory | None = None, **changes: Any) -> HostReport:
    return _report(WEB, of or inventory(), state, RUNTIMES, facts(**changes), None)


def found(one: HostReport) -> list[tuple[str, bool]]:
    return [(finding.code, finding.is_failure) for finding in one.findings]


def fatal(**changes: Any) -> list[str]:
    return [code for code, is_failure in found(report(**changes)) if is_failure]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("OpenSSL 1.1.1w  11 Sep 2023", "1.1.1"),
        ("Server version: Apache/2.4.62 (Debian)", "2.4.62"),
        ("v20.19.4", "20.19.4"),
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15"),
        ("nobody knows", "nobody knows"),
    ],
)
def test_a_version_is_the_number_in_what_a_program_says(text: str, version: str) -> None:
    assert version == version_text(text)


@pytest.mark.parametrize(
    ("text", "least", "is_so"),
    [
        ("nginx/1.19.3", (1, 19, 4), True),
        ("nginx/1.19.4", (1, 19, 4), False),
        ("nginx/1.9.15", (1, 19, 4), True),
        ("v12.22.0", (12,), False),
        ("v9.0.0", (12,), True),
        ("something else", (1,), False),
    ],
)
def test_versions_are_compared_as_numbers_and_what_cannot_be_read_is_let_pass(
    text: str, least: tuple[int, ...], *, is_so: bool
) -> None:
    assert is_so is is_older(text, least)


def test_a_host_with_all_that_is_needed_is_fit() -> None:
    assert report().is_fit
    assert [] == [code for code, _ in found(report()) if code != "M4318"]


@pytest.mark.parametrize(
    ("seconds", "round_trip", "result"),
    [
        (29, 0, []),
        (31, 0, [("M4313", False)]),
        (-31, 0, [("M4313", False)]),
        (40, 30, []),
        (301, 0, [("M4313", True)]),
        (-9000, 0, [("M4313", True)]),
        (310, 60, [("M4313", False)]),
    ],
)
def test_a_clock_is_off_when_the_round_trip_does_not_explain_it(
    seconds: float, round_trip: float, result: list[tuple[str, bool]]
) -> None:
    one = report(clock_off=timedelta(seconds=seconds), round_trip=timedelta(seconds=round_trip))
    assert result == [each for each in found(one) if each[0] == "M4313"]


def test_a_clock_that_was_not_told_is_not_off() -> None:
    assert report(clock_off=None).is_fit


@pytest.mark.parametrize(("mebibytes", "result"), [(101, []), (99, [("M4319", False)]), (9, [("M4319", True)])])
def test_little_room_is_told_before_there_is_none(mebibytes: int, result: list[tuple[str, bool]]) -> None:
    assert result == [each for each in found(report(free_bytes=mebibytes * 1024**2)) if each[0] == "M4319"]
    assert report(free_bytes=None).is_fit


def test_a_program_or_tool_that_is_too_old_makes_a_host_unfit() -> None:
    assert ["M4316"] == fatal(programs=(("nginx", "nginx version: nginx/1.18.0"),))
    assert ["M4316"] == fatal(tools=(("openssl", "OpenSSL 1.0.2k-fips  26 Jan 2017"),))
    assert [] == fatal(tools=(("tar", "tar (GNU tar) 0.1"),))


def test_an_old_program_that_nothing_is_written_for_is_not_held_against_a_host() -> None:
    assert [] == fatal(programs=(("nginx", "nginx/1.22.1"), ("httpd", "Apache/2.2.15")))


def test_a_program_that_is_not_there_is_told_and_no_failure() -> None:
    one = report(programs=())
    assert one.is_fit
    assert ("M4318", False) in found(one)


def test_a_port_that_somebody_else_listens_on_is_told_until_we_are_live_there() -> None:
    taken = frozenset({(None, 8443)})
    assert ("M4317", False) in found(report(places=taken))
    live = applied(estate(service("schedule", door("mail", port=8443)), service("mail", runtime="node"))).state
    assert ("M4317", False) not in found(report(live, places=taken))
    assert ("M4317", False) not in found(report(places=frozenset({(None, 9443)})))


def test_a_listener_of_one_address_shares_the_port_with_other_addresses() -> None:
    made = inventory(bind=Bind.HOST)
    assert ("M4317", False) not in found(report(of=made, places=frozenset({("10.0.0.2", 8443)})))
    assert ("M4317", False) in found(report(of=made, places=frozenset({("10.0.0.1", 8443)})))


def test_hosts_are_chosen_by_name_or_pattern_and_all_without_one() -> None:
    made = estate(service("mail", hosts=("web1", "web2", "db1")))
    assert ["web1", "web2", "db1"] == list(chosen(made, []))
    assert ["web1", "web2"] == list(chosen(made, ["web*"]))
    with pytest.raises(UsageError, match="`x\\*`"):
        chosen(made, ["web1", "x*"])


def test_what_a_host_says_cannot_act_on_the_screen() -> None:
    text = check_text([report(system="\x1b[2J", programs=(("nginx", "\x1b]0;x\x07"),))], Page())
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_screen_names_what_is_checked_and_reloaded_how() -> None:
    text = check_text([report()], Page(width=200))
    assert "nginx: schedule on 8443; 1.22.1; checked by nginx -t; reloaded by SIGHUP to its master" in text
    assert "✓ h1  deploy@10.0.0.1  sudo" in text
    assert text.endswith("1 host: 1 fit, 0 not.\n")


def test_an_error_is_told_with_all_that_helps() -> None:
    error = DeliveryError("no", code="M4303", notes=("a note",), help="do that")
    one = _report(WEB, inventory(), None, RUNTIMES, None, error)
    text = check_text([one], Page())
    assert "✗ M4303 no\n      a note\n      help: do that\n" in text
    document = check_document([one], 3)
    assert (3, False) == (document["exit_code"], document["hosts"][0]["fit"])  # type: ignore[index]


def test_places_are_written_as_ssh_takes_them() -> None:
    assert "deploy@10.0.0.1" == place_of(WEB)
    assert "[fd00::1]:2222" == place_of(SshHost(name="a", address="fd00::1", port=2222))
    assert "/out/h1" == place_of(host("h1"))
    assert "ssh" in hosts_text(inventory())
