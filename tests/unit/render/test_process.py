from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.errors import UnsafePlan
from mtlsctl.model.release import Socket
from mtlsctl.model.topology import ProcessId
from mtlsctl.render import codes
from mtlsctl.render.process import render_pointer
from tests.unit.render.recipes import FOLDERS, HOST, call, door, recipe

if TYPE_CHECKING:
    from mtlsctl.model.release import Recipe

RELEASES = ("0123456789abcdef", "fedcba9876543210", "00112233445566aa")
PROCESS = ProcessId(HOST, "nginx")


def pointer(*members: Any) -> str:
    pairs = list(zip(members, RELEASES, strict=False))
    return render_pointer(FOLDERS["nginx"], PROCESS, pairs).decode()


def conflicts(*members: Any) -> list[str]:
    with pytest.raises(UnsafePlan) as raised:
        pointer(*members)
    assert {codes.PORT_CONFLICT} == {one.code for one in raised.value.diagnostics}
    return [one.message for one in raised.value.diagnostics]


def serving(service: str, *listeners: Any, **more: Any) -> Recipe:
    return recipe(service, "nginx", listeners=listeners, **more)


def calling(service: str, **ports: Any) -> Recipe:
    callees = [call(name) for name in sorted(ports)]
    return recipe(service, "nginx", callees=callees, settings=[("egress", tuple(sorted(ports.items())))])


def test_each_socket_has_one_catch_all_and_each_member_one_include() -> None:
    text = pointer(serving("schedule", door()), serving("ledger", door(), door(9443, name="admin")))
    assert ['"8443"', '"9443"'] == re.findall(r"listen (\S+) ssl default_server;", text)
    assert 2 == text.count("ssl_reject_handshake on;")
    assert ["ledger", "schedule"] == re.findall(r'include "/etc/mtlsctl/(\w+)/releases/\w{16}/nginx.conf";', text)


def test_the_order_of_the_members_changes_nothing() -> None:
    first, second = serving("schedule", door()), serving("ledger", door())
    pairs = [(first, RELEASES[0]), (second, RELEASES[1])]
    folder = FOLDERS["nginx"]
    assert render_pointer(folder, PROCESS, pairs) == render_pointer(folder, PROCESS, pairs[::-1])


def test_a_process_without_members_includes_nothing() -> None:
    assert "include" not in pointer()


def test_a_shared_socket_speaks_the_protocols_of_all_its_doors() -> None:
    """While one of them is a wave ahead; the inventory has them equal in the end."""
    strict = serving("ledger", door(protocols=("1.3",)))
    assert "ssl_protocols TLSv1.3;" in pointer(strict)
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in pointer(strict, serving("schedule", door()))


def test_services_that_share_a_port_differ_in_their_names() -> None:
    one, other = (serving(name, door(), names=("Both.example.com",)) for name in ("ledger", "schedule"))
    (message,) = conflicts(one, other)
    assert "both serve both.example.com at 8443" in message
    assert pointer(one, serving("schedule", door(9443), names=("both.example.com",)))


def test_a_socket_of_one_address_would_hide_whoever_listens_on_all() -> None:
    here, everywhere = serving("ledger", door(address="10.0.0.1")), serving("schedule", door())
    (message,) = conflicts(here, everywhere)
    assert "schedule listens on every address, but at 10.0.0.1:8443 it would be hidden" in message
    assert pointer(here, serving("schedule", door(9443)))


def test_a_listener_that_moves_from_every_address_to_one_hides_nothing() -> None:
    both = replace(door(), sockets=(Socket(None, 8443), Socket("10.0.0.1", 8443)))
    assert '"10.0.0.1:8443"' in pointer(serving("schedule", both))


def test_a_local_port_belongs_to_one_service() -> None:
    (message,) = conflicts(calling("mail", schedule=9001), calling("social", schedule=9001))
    assert "mail and social both want the local port 9001" in message
    assert pointer(calling("mail", schedule=9001), calling("social", schedule=9002))


def test_a_local_port_is_nobodys_listener() -> None:
    assert conflicts(serving("ledger", door(9001)), calling("mail", schedule=9001))
    assert conflicts(serving("ledger", door(9001, address="127.0.0.1")), calling("mail", schedule=9001))
    assert pointer(serving("ledger", door(9001, address="10.0.0.1")), calling("mail", schedule=9001))


def test_a_service_does_not_use_a_local_port_twice() -> None:
    assert conflicts(calling("mail", ledger=9001, schedule=9001))


def test_only_a_long_name_widens_the_table_of_names() -> None:
    directive = "server_names_hash_bucket_size"
    assert directive not in pointer(serving("ledger", door(), names=("x" * 42 + ".com",)))
    assert directive in pointer(serving("ledger", door(), names=("x" * 43 + ".com",)))


@pytest.mark.parametrize("release", ["current", "../x", "0123456789ABCDEF", ""])
def test_a_release_has_its_own_kind_of_name(release: str) -> None:
    with pytest.raises(UnsafePlan):
        render_pointer(FOLDERS["nginx"], PROCESS, [(serving("ledger", door()), release)])


def test_a_runtime_with_the_symlink_current_has_no_pointer_file() -> None:
    with pytest.raises(ValueError, match="no pointer file"):
        render_pointer(FOLDERS["node"], ProcessId(HOST, "mail"), [])
