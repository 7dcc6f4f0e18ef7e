"""Which stores a release has, what its digest says of them, and what holds their password."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import RuntimeFolderError, UnsafePlan
from mtlsctl.model.credential import SHARED, AuthorityId, CredentialId
from mtlsctl.model.keystore import PasswordSource, StoreKind, StoreProfile
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import InstanceId
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.render.cases import made_up_material
from mtlsctl.render.catalog import read_folder
from mtlsctl.render.context import UnfitSetting
from mtlsctl.render.manifest import parse_manifest
from mtlsctl.render.release import fill, render_secret_files
from mtlsctl.render.stores import aliases, password_source, specifications
from tests.unit.render.folders import MANIFEST, make_folder
from tests.unit.render.recipes import FOLDERS, call, door, recipe

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.model.release import Recipe
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.render.release import RenderedRelease

JAVA = FOLDERS["java"]
STORES = """\
stores:
  - { path: "clients/{listener}.p12", kind: clients, each: listener }
  - { path: "servers/{callee}.p12", kind: servers, each: callee }
  - { path: servers.p12, kind: all_servers }
  - { path: key.p12, kind: key, named_by: keystore_file }
  - { path: "anchors/{anchor}.cer", kind: anchor, each: anchor }
  - { path: leaf.cer, kind: certificate }
  - { path: secrets/password, kind: password }
settings:
  alias: { type: alias, description: a }
  keystore_file: { type: file_name, description: a }
  store_password: { type: password, description: a }
  store_profile: { type: choice, values: [modern, legacy], description: a }
"""
STORED = MANIFEST.partition("settings:")[0] + STORES
TEMPLATES = {
    "a_conf_j2": "{{ stores.key | nginx }} {{ store_alias | nginx }} {{ store_password_file | nginx }}\n"
    "{% for one in listeners %}{{ stores.clients[one.name] | nginx }}\n{% endfor %}",
    "callee_j2": "{{ stores.servers[callee.name] | nginx }} {{ stores.all_servers | nginx }}\n",
}


def made(*settings: tuple[str, str], callers: tuple[str, ...] = ("mail",), callees: bool = True) -> Recipe:
    listeners = [door(callers=callers)] if callers else []
    called = [call("mail"), call("ledger", listener="admin")] if callees else []
    return recipe("schedule", "java", listeners=listeners, callees=called, settings=settings)


def filled(folder: object, one: Recipe) -> RenderedRelease:
    return fill(one, folder, made_up_material(one))  # type: ignore[arg-type]


def test_each_kind_of_store_has_its_anchors_under_aliases_of_their_own(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, STORED, **TEMPLATES))
    found = {one.path: one for one in specifications(made(), folder.manifest)}
    mail, ledger = ("mail-ca-g1", AuthorityId("mail", 1)), ("ledger-ca-g1", AuthorityId("ledger", 1))
    assert {
        "anchors/ledger-ca-g1.cer": (ledger,),
        "anchors/mail-ca-g1.cer": (mail,),
        "clients/main.p12": (mail,),
        "key.p12": (),
        "leaf.cer": (),
        "secrets/password": (),
        "servers.p12": (ledger, mail),
        "servers/ledger.admin.p12": (ledger,),
        "servers/mail.p12": (mail,),
    } == {path: one.anchors for path, one in found.items()}
    assert ("schedule", StoreProfile.MODERN) == (found["key.p12"].alias, found["key.p12"].profile)


def test_templates_name_stores_by_absolute_paths_and_by_listener_and_callee(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, STORED, **TEMPLATES))
    release = filled(folder, made(("keystore_file", "server.jks"), ("alias", "web")))
    texts = {one.path: one.content.decode() for one in release.files}
    place = f'"/etc/mtlsctl/schedule/releases/{release.release}'
    assert f'{place}/server.jks" "web" {place}/secrets/password"\n{place}/clients/main.p12"\n' == texts["a.conf"]
    assert f'{place}/servers/mail.p12" {place}/servers.p12"\n' == texts["to/mail.conf"]
    assert f'{place}/servers/ledger.admin.p12" {place}/servers.p12"\n' == texts["to/ledger.admin.conf"]


def test_single_certificates_are_public_files_in_der(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, STORED, **TEMPLATES))
    one = made()
    release, material = filled(folder, one), made_up_material(one)
    files = {file.path: (file.content, file.mode) for file in release.files}
    assert (material.chain[0], 0o640) == files["leaf.cer"]
    assert (material.anchors[AuthorityId("mail", 1)], 0o640) == files["anchors/mail-ca-g1.cer"]
    assert not {"key.p12", "secrets/password", "servers.p12"} & files.keys()
    assert {StoreKind.CERTIFICATE, StoreKind.ANCHOR}.isdisjoint({store.kind for store in release.stores})


def test_one_store_for_everyone_holds_both_directions_and_both_generations() -> None:
    one = made()
    two = PeerPolicy(anchors=frozenset({AuthorityId("mail", 1), AuthorityId("mail", 2)}))
    one = replace(one, listeners=(replace(one.listeners[0], policy=two),))
    (trust,) = [store for store in specifications(one, JAVA.manifest) if store.kind is StoreKind.EVERYONE]
    assert ["ledger-ca-g1", "mail-ca-g1", "mail-ca-g2"] == [alias for alias, _ in trust.anchors]


def test_a_trust_store_that_would_be_empty_is_left_out_and_java_believes_nobody() -> None:
    nobody = made(callers=(), callees=False)
    assert {StoreKind.KEY, StoreKind.PASSWORD} == {one.kind for one in specifications(nobody, JAVA.manifest)}
    (arguments, _) = render_secret_files(nobody, JAVA, "0" * 16, Secret(b"password"))
    assert b"-Djavax.net.ssl.trustStore=NONE\n" in arguments.content
    assert b"trustStorePassword" not in arguments.content


def test_no_two_anchors_have_one_alias_whatever_kind_they_are_of() -> None:
    anchors: list[TrustAnchor] = [
        AuthorityId(SHARED, 1),
        AuthorityId("shared", 1),
        AuthorityId("mail", 2),
        CredentialId(InstanceId("a", "b-c"), 1),
        CredentialId(InstanceId("a-b", "c"), 1),
    ]
    found = aliases(anchors)
    assert ["a-b-c-1", "a-b-c-1-2", "mail-ca-g2", "shared-ca-g1", "shared-ca-g1-2"] == sorted(found)
    assert found == aliases(reversed(anchors))


@pytest.mark.parametrize(
    "setting",
    [
        ("store_profile", "newest"),
        ("alias", "Two Words"),
        ("alias", 'a"'),
        ("keystore_file", "../x"),
        ("keystore_file", "a/b"),
        ("keystore_file", ".x"),
        ("keystore_file", "trust.p12"),
        ("keystore_file", "TRUST.p12"),
    ],
)
def test_a_setting_that_no_store_can_follow_is_refused_past_the_inventory_too(setting: tuple[str, str]) -> None:
    with pytest.raises(UnsafePlan):
        filled(JAVA, made(setting))


def test_where_a_password_comes_from_survives_being_written() -> None:
    for text, source in {
        "generated": PasswordSource(),
        "env:MTLSCTL_SECRET_A1": PasswordSource(variable="MTLSCTL_SECRET_A1"),
        "file:a.b": PasswordSource(file="a.b"),
    }.items():
        assert (source, text) == (password_source(made(("store_password", text))), str(source))
    assert PasswordSource() == password_source(made())
    for text in ("env:HOME", "file:../a", "hunter2", "generated:x", ""):
        with pytest.raises(UnfitSetting):
            password_source(made(("store_password", text)))


def test_the_digest_covers_what_goes_into_stores_and_not_the_password_itself() -> None:
    base = made()
    digests = {
        filled(JAVA, base).release_digest,
        filled(JAVA, made(("alias", "other"))).release_digest,
        filled(JAVA, made(("store_profile", "legacy"))).release_digest,
        filled(JAVA, made(("store_password", "env:MTLSCTL_SECRET_A"))).release_digest,
        filled(JAVA, made(callers=("mail", "social"))).release_digest,
    }
    assert 5 == len(digests)
    material = made_up_material(base)
    renewed = replace(material, anchors={**material.anchors, AuthorityId("mail", 1): b"another certificate"})
    assert fill(base, JAVA, renewed).release_digest not in digests
    assert filled(JAVA, base).release_digest in digests


def test_what_holds_the_password_is_private_and_rendered_apart() -> None:
    one = made()
    release = filled(JAVA, one)
    assert {"java.args", "secrets/store-password"}.isdisjoint({file.path for file in release.files})
    secret = render_secret_files(one, JAVA, release.release, Secret(b'a "b\\c'))
    assert ["java.args", "secrets/store-password"] == [file.path for file in secret]
    assert {0o600} == {file.mode for file in secret}
    assert b'a "b\\c' == secret[1].content
    assert b'"-Djavax.net.ssl.keyStorePassword=a \\"b\\\\c"\n' in secret[0].content
    assert b"b\\c" not in repr(secret).encode()


def test_a_template_that_is_not_secret_cannot_see_the_password(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, STORED, a_conf_j2="{{ store_password | nginx }}\n"))
    with pytest.raises(RuntimeFolderError):
        filled(folder, made())


def test_no_template_sees_where_the_password_comes_from(tmp_path: Path) -> None:
    folder = read_folder(make_folder(tmp_path, STORED, a_conf_j2="{{ settings.store_password | nginx }}\n"))
    with pytest.raises(RuntimeFolderError):
        filled(folder, made())


def test_a_password_that_a_syntax_cannot_hold_is_refused_without_being_quoted(tmp_path: Path) -> None:
    manifest = STORED.replace("template: a.conf.j2 }", "template: a.conf.j2, secret: true }")
    folder = read_folder(make_folder(tmp_path, manifest, a_conf_j2="{{ store_password | nginx }}\n"))
    with pytest.raises(UnsafePlan) as refused:
        render_secret_files(made(), folder, "0" * 16, Secret(b"cash$money"))
    assert "cash" not in str(refused.value) + repr(refused.value.diagnostics)
    assert b'"cash-money"\n' == render_secret_files(made(), folder, "0" * 16, Secret(b"cash-money"))[0].content


CHANGES = [
    ("kind: all_servers", "kind: some_servers", "`kind` is one of"),
    ("kind: clients, each: listener", "kind: clients", "each: listener"),
    ("kind: clients, each: listener", "kind: clients, each: callee", "each: listener"),
    ("kind: all_servers", "kind: all_servers, each: callee", "no `each`"),
    ('"servers/{callee}.p12"', "servers/all.p12", "in braces"),
    ("path: servers.p12", "path: ../servers.p12", "`path`"),
    ("path: servers.p12", "path: /servers.p12", "relative"),
    ("path: servers.p12", "path: a/../servers.p12", "only down"),
    ("path: servers.p12", "path: tls.key", "fixed names"),
    ("path: servers.p12", "path: tls.key/x", "fixed names"),
    ("path: servers.p12", "path: x.pem", "fixed names"),
    ("path: servers.p12", "path: a.conf", "same path"),
    ("kind: certificate", "kind: key", "same kind"),
    ("named_by: keystore_file", "named_by: alias", "`named_by` names a setting"),
    ("named_by: keystore_file", "named_by: nothing", "`named_by` names a setting"),
    ("path: key.p12", "path: a/key.p12", "in no folder"),
    ("  - { path: secrets/password, kind: password }\n", "", "one entry of `kind: password`"),
    ("type: file_name, ", "type: choice, ", "`values` goes with"),
    ("values: [modern, legacy], ", "", "`values` goes with"),
    ("[modern, legacy]", "[]", "one at least"),
    ("[modern, legacy]", "[modern, modern]", "different"),
    ("[modern, legacy]", "[modern, newest]", "`store_profile` is one of"),
    ("alias: { type: alias", "alias: { type: file_name", "the setting `alias` has"),
    ("store_password: {", "other_password: {", "the only password"),
    ("template: a.conf.j2 }", "template: a.conf.j2, secret: maybe }", "true or false"),
]


@pytest.mark.parametrize(("old", "new", "message"), CHANGES, ids=[new or old for old, new, _ in CHANGES])
def test_a_wrong_manifest_of_stores_is_refused(old: str, new: str, message: str) -> None:
    assert parse_manifest(STORED.encode(), "runtime.yaml").stores
    assert old in STORED
    with pytest.raises(RuntimeFolderError) as refused:
        parse_manifest(STORED.replace(old, new, 1).encode(), "runtime.yaml")
    said = [one.message for one in refused.value.diagnostics]
    assert any(message in one for one in said), said


def test_one_store_for_both_directions_does_not_go_with_separate_trust() -> None:
    with pytest.raises(RuntimeFolderError, match="separate_trust"):
        parse_manifest(STORED.replace("kind: all_servers", "kind: everyone").encode(), "runtime.yaml")


def test_a_secret_file_needs_stores() -> None:
    text = MANIFEST.replace("template: a.conf.j2 }", "template: a.conf.j2, secret: true }")
    with pytest.raises(RuntimeFolderError, match="password of the stores"):
        parse_manifest(text.encode(), "runtime.yaml")
