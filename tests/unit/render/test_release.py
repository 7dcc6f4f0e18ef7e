from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.deliver import layout
from mtlsctl.errors import PreflightError, RuntimeFolderError, UnsafePlan
from mtlsctl.model.release import Socket, release_digest
from mtlsctl.model.topology import ClientCertificate
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.pki.stores import parse_bundle
from mtlsctl.render import codes
from mtlsctl.render.cases import made_up_material
from mtlsctl.render.release import render_release
from tests.unit.render.recipes import FOLDERS, call, door, recipe, with_digest

if TYPE_CHECKING:
    from mtlsctl.model.release import Recipe, ServedListener
    from mtlsctl.model.topology import SettingValue

SERVING = recipe("schedule", "nginx", root="/out", listeners=[door(callers=("social", "mail"))])
CALLING = recipe("mail", "node", callees=[call("schedule"), call("ledger", listener="admin")])


def rendered(made: Recipe, **changes: Any) -> Any:
    material = replace(made_up_material(made), **changes)
    return render_release(made, FOLDERS[made.runtime], material)


def contents(made: Recipe) -> dict[str, bytes]:
    return {file.path: file.content for file in rendered(made).files}


def unsafe(made: Recipe) -> str:
    with pytest.raises(UnsafePlan) as raised:
        rendered(made)
    (found,) = raised.value.diagnostics
    return found.code


def unready(made: Recipe, **changes: Any) -> str:
    with pytest.raises(PreflightError) as raised:
        rendered(made, **changes)
    return raised.value.code


def test_a_release_is_named_by_the_digest_of_recipe_and_material() -> None:
    release = rendered(SERVING)
    material = made_up_material(SERVING)
    digests = {
        path: hashlib.sha256(contents(SERVING)[path]).hexdigest() for path in ("tls.crt", "clients/main.pem")
    } | {"certificate": material.certificate_sha256, "spki": material.spki_sha256}
    assert release_digest(SERVING, digests) == release.release_digest
    assert release.release_digest[:16] == release.release
    assert material.spki_sha256 == release.key_spki_sha256


def test_names_and_paths_are_those_of_the_layout_on_a_host() -> None:
    folder = layout.release_folder("schedule", rendered(SERVING).release)
    assert f'ssl_certificate "/out{folder}/tls.crt";' in contents(SERVING)["nginx.conf"].decode()


def test_every_release_holds_the_chain_and_a_bundle_for_each_peer_and_never_a_key() -> None:
    assert ["clients/main.pem", "nginx.conf", "tls.crt"] == sorted(contents(SERVING))
    assert ["mtls.cjs", "servers/ledger.admin.pem", "servers/schedule.pem", "tls.crt"] == sorted(contents(CALLING))
    assert {0o640} == {file.mode for file in rendered(SERVING).files}


def test_a_bundle_holds_its_anchors_in_order_each_ended_by_a_newline() -> None:
    material = made_up_material(SERVING)
    expected = tuple(material.anchors[anchor] for anchor in sorted(material.anchors))
    pem = contents(SERVING)["clients/main.pem"]
    assert expected == parse_bundle(pem)
    assert pem.endswith(b"-----END CERTIFICATE-----\n")


def test_other_material_makes_another_release_and_the_same_makes_the_same() -> None:
    first = rendered(SERVING)
    assert first == rendered(SERVING)
    assert first.release != rendered(SERVING, spki_sha256="0" * 64).release
    other = dict.fromkeys(made_up_material(SERVING).anchors, b"other")
    assert first.release != rendered(SERVING, anchors=other).release


def test_a_listener_without_callers_has_no_bundle_and_refuses_everyone() -> None:
    closed = recipe("vault", "nginx", listeners=[door(callers=())])
    assert ["nginx.conf", "tls.crt"] == sorted(contents(closed))
    text = contents(closed)["nginx.conf"].decode()
    assert "ssl_reject_handshake on;" in text
    assert "ssl_certificate" not in text


def test_a_listener_that_asks_for_no_certificate_is_open_only_because_it_says_so() -> None:
    public = replace(door(callers=()), client_certificate=ClientCertificate.NONE)
    text = contents(recipe("portal", "nginx", listeners=[public]))["nginx.conf"].decode()
    assert "ssl_verify_client off;" in text
    assert (
        "ssl_verify_client"
        not in contents(recipe("portal", "nginx", listeners=[door(callers=())]))["nginx.conf"].decode()
    )


def test_the_five_lines_that_make_nginx_check_a_callee_are_there() -> None:
    made = recipe("mail", "nginx", callees=[call("schedule")])
    lines = contents(made)["callees/schedule.conf"].decode().split("\n")
    assert 'proxy_ssl_name "schedule.calendar.internal";' in lines
    for line in ("proxy_ssl_verify on;", "proxy_ssl_verify_depth 0;", "proxy_ssl_server_name on;"):
        assert line in lines
    assert any(re.fullmatch(r'proxy_ssl_trusted_certificate "/.*/servers/schedule\.pem";', line) for line in lines)


def test_templates_that_changed_since_the_plan_are_refused() -> None:
    assert codes.STALE_TEMPLATES == unready(with_digest(SERVING, "0" * 64))


def test_an_anchor_that_is_not_at_hand_is_refused() -> None:
    assert codes.ANCHOR_MISSING == unready(SERVING, anchors={})


@pytest.mark.parametrize(
    "listener",
    [
        replace(door(), policy=PeerPolicy(anchors=frozenset())),
        replace(door(), callers=()),
        replace(door(), client_certificate=ClientCertificate.NONE),
    ],
    ids=["callers without anchors", "anchors without callers", "anchors that nobody asks for"],
)
def test_a_bundle_that_does_not_fit_its_callers_is_refused(listener: ServedListener) -> None:
    assert codes.EMPTY_BUNDLE == unready(recipe("schedule", "nginx", listeners=[listener]))


def test_a_callee_without_an_anchor_is_refused() -> None:
    nobody = replace(call("schedule"), policy=PeerPolicy(anchors=frozenset()))
    assert codes.EMPTY_BUNDLE == unready(recipe("mail", "curl", callees=[nobody]))


@pytest.mark.parametrize(
    "change",
    [
        {"root": "relative"},
        {"root": "/a/../b"},
        {"root": "/a*"},
        {"server_names": ("*.example.com",)},
        {"server_names": ("~^",)},
        {"listeners": (replace(door(), name="../x"),)},
        {"listeners": (replace(door(), protocols=()),)},
        {"listeners": (replace(door(), protocols=("1.1",)),)},
        {"listeners": (replace(door(), sockets=(Socket("10.0.0.1;", 1),)),)},
        {"listeners": (replace(door(), sockets=(Socket(None, 0),)),)},
        {"listeners": (replace(door(), sockets=(Socket(address=None, port=True),)),)},
    ],
    ids=str,
)
def test_what_cannot_be_written_is_an_unsafe_plan(change: dict[str, Any]) -> None:
    assert codes.UNWRITABLE == unsafe(replace(SERVING, **change))


@pytest.mark.parametrize(
    "settings",
    [
        (("colour", "red"),),
        (("upstream", "https://127.0.0.1"),),
        (("upstream", 5),),
        (("egress", "x"),),
        (("upstream", True),),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_rendered_is_an_unsafe_plan(settings: tuple[tuple[str, SettingValue], ...]) -> None:
    assert codes.SETTING == unsafe(replace(SERVING, settings=settings))


def test_a_local_port_stands_for_the_main_listener_or_for_the_only_one() -> None:
    callees = [call("ledger", listener="admin"), call("schedule"), call("schedule", listener="admin")]
    made = recipe("mail", "nginx", callees=callees, settings=[("egress", (("ledger", 9001), ("schedule", 9002)))])
    text = contents(made)["nginx.conf"].decode()
    assert re.search(r"127\.0\.0\.1:9001[^}]*mtlsctl_mail_ledger\.admin", text)
    assert re.search(r"127\.0\.0\.1:9002[^}]*mtlsctl_mail_schedule\"", text)


def test_a_local_port_that_could_mean_two_listeners_is_refused() -> None:
    callees = [call("ledger", listener="admin"), call("ledger", listener="batch")]
    assert codes.SETTING == unsafe(recipe("mail", "nginx", callees=callees, settings=[("egress", (("ledger", 9001),))]))


def test_curl_tries_every_numeric_endpoint_and_takes_the_first_name() -> None:
    callees = [call("schedule", 8443, "10.0.0.1", "2001:db8::1"), call("ledger", 7443, "db.example.net", "10.0.0.2")]
    files = contents(recipe("cron", "curl", callees=callees))
    assert 'resolve = "schedule.calendar.internal:8443:10.0.0.1,[2001:db8::1]"\n' in files["schedule.curlrc"].decode()
    lines = [line for line in files["ledger.curlrc"].decode().split("\n") if line.startswith("connect-to")]
    assert [
        'connect-to = "ledger.calendar.internal:7443:db.example.net:7443"',
        'connect-to = "ledger.calendar.internal:7443:10.0.0.2:7443"',
    ] == lines


def test_an_error_names_the_instance_and_shows_no_control_character() -> None:
    made = replace(SERVING, instance=SERVING.instance._replace(service="a\x1b[2J"))
    with pytest.raises(UnsafePlan) as raised:
        rendered(made)
    assert "\x1b" not in raised.value.diagnostics[0].message
    assert "@web1" in raised.value.diagnostics[0].message


def test_an_unsafe_plan_and_a_wrong_folder_leave_with_the_code_for_their_author() -> None:
    assert (7, 7, 1) == (UnsafePlan.exit_code, RuntimeFolderError.exit_code, PreflightError.exit_code)
