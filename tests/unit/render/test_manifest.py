from __future__ import annotations

import pytest

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.runtime import Check, Condition, Doors, PointerKind, ProcessScope, Reload, Role, Setting, SettingType
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity
from mtlsctl.render import codes
from mtlsctl.render.catalog import load_catalog
from mtlsctl.render.manifest import parse_manifest, to_runtime
from tests.unit.render.folders import MANIFEST


def problems(text: str) -> list[tuple[int, str]]:
    with pytest.raises(RuntimeFolderError) as raised:
        parse_manifest(text if isinstance(text, bytes) else text.encode(), "runtime.yaml")
    assert {codes.MANIFEST} == {one.code for one in raised.value.diagnostics}
    return [(one.span.line, one.message) for one in raised.value.diagnostics if one.span is not None]


def test_a_manifest_becomes_a_runtime() -> None:
    runtime = to_runtime(parse_manifest(MANIFEST.encode(), "runtime.yaml"), "digest")
    assert ("sample", "digest", "sample", "/etc/sample.conf") == (
        runtime.name,
        runtime.digest,
        runtime.process,
        runtime.pointer_path,
    )
    assert (frozenset(Role), ProcessScope.HOST, PointerKind.FILE) == (runtime.roles, runtime.scope, runtime.pointer)
    assert (Check.NONE, Reload.NONE) == (runtime.check, runtime.reload)
    depth = Setting(name="depth", type=SettingType.INTEGER, required=False, description="a number")
    assert (depth,) == runtime.settings
    assert (True, False) == (runtime.enforcement.refuse_all, runtime.enforcement.identifiers)


def test_what_a_manifest_does_not_claim_about_callers_without_a_certificate_it_cannot() -> None:
    able = parse_manifest(MANIFEST.encode(), "runtime.yaml").enforcement
    assert {ClientCertificate.REQUIRED} == able.client_certificate
    claims = MANIFEST.replace(
        "  server_names: true\n", "  server_names: true\n  client_certificate: [required, none]\n"
    )
    able = parse_manifest(claims.encode(), "runtime.yaml").enforcement
    assert {ClientCertificate.REQUIRED, ClientCertificate.NONE} == able.client_certificate
    assert [(16, "a mode of `client_certificate` is one of required, optional, none")] == problems(
        claims.replace("[required, none]", "[required, some]")
    )


def test_a_manifest_names_each_form_of_forwarding_that_it_can_and_says_why_it_cannot_the_other() -> None:
    nothing = parse_manifest(MANIFEST.encode(), "runtime.yaml").enforcement
    assert (frozenset(), "it has nothing behind it") == (
        nothing.forward_identity,
        nothing.why_not(ForwardIdentity.HEADERS),
    )
    claims = MANIFEST.replace("settings:", "  forward_identity: { headers: true, rfc9440: no variable }\nsettings:")
    able = parse_manifest(claims.encode(), "runtime.yaml").enforcement
    assert frozenset({ForwardIdentity.HEADERS}) == able.forward_identity
    assert "no variable" == able.why_not(ForwardIdentity.RFC9440)
    for wrong, message in (("headers: ''", "the reason why not"), ("header: true", "one of headers, rfc9440")):
        assert message in problems(claims.replace("headers: true", wrong))[0][1]


def test_our_nginx_is_switched_by_its_file_and_the_others_by_current() -> None:
    pointers = {name: folder.runtime.pointer_path for name, folder in load_catalog().items()}
    current = "/etc/mtlsctl/{service}/current"
    assert {
        "apache": "/etc/apache2/conf-enabled/mtlsctl.conf",
        "nginx": "/etc/nginx/conf.d/mtlsctl.conf",
        "node": current,
        "curl": current,
        "pem": current,
        "ruby": current,
        "java": current,
        "browser": current,
        "spring-boot": current,
    } == pointers


CHANGES = [
    ("version: 1", "version: 2", 1, "`version` is 1"),
    ("name: sample", "name: Sample", 2, "`name`"),
    ("description: a sample", "description: ''", 3, "`description`"),
    ("description: a sample", "colour: red", 1, "lacks description"),
    ("[server, caller]", "[server, proxy]", 4, "one of server, caller"),
    ("[server, caller]", "[]", 1, "`roles` is empty"),
    ("scope: host", "scope: world", 5, "one of host, instance"),
    ("program: sample", "program: 'a b'", 5, "`program`"),
    ("program: sample", "reload: signal-hup", 1, "needs its name"),
    ("program: sample", "reload: 'systemctl restart x'", 5, "`reload` is one of"),
    ("program: sample", "check: 'sh -c x'", 5, "`check` is one of"),
    ("file: /etc/sample.conf", "file: etc/sample.conf", 5, "absolute"),
    ("file: /etc/sample.conf", "file: /etc/../sample.conf", 5, "absolute"),
    ("file: /etc/sample.conf", "file: '/etc/{service}.conf'", 1, "names {service}"),
    ("includes: a.conf", "includes: b.conf", 1, "`includes`"),
    ("{ file: /etc/sample.conf, template: process.j2, includes: a.conf }", "current", 1, "whole host"),
    ("path: a.conf,", "path: /a.conf,", 7, "`path`"),
    ("path: a.conf,", "path: ../a.conf,", 7, "`path`"),
    ("path: a.conf,", "path: a/../b,", 7, "`path`"),
    ("path: a.conf,", "path: tls.key,", 7, "fixed names"),
    ("path: a.conf,", "path: clients/x,", 7, "fixed names"),
    ("path: a.conf,", "path: other.pem,", 7, "fixed names"),
    ("path: a.conf,", 'path: "{callee}.conf",', 7, "each: callee"),
    ('"to/{callee}.conf"', "to/x.conf", 8, "each: callee"),
    ('"to/{callee}.conf"', '"to/{listener}.conf"', 8, "each: callee"),
    ("each: callee", "each: service", 8, "`each` is one of"),
    ("template: a.conf.j2", "template: ../a.conf.j2", 7, "`template`"),
    ("template: a.conf.j2 }", "template: a.conf.j2, mode: 0777 }", 7, "`mode` is not a key"),
    ("anchors: true", "anchors: yes", 10, "true or false"),
    ("  crls: false\n", "", 10, "lacks crls"),
    ("type: integer", "type: text", 17, "`type` is one of"),
    ("depth:", "Depth:", 17, "a setting's name"),
    ("version: 1", "version: 1\nversion: 1", 2, "stands twice"),
    ("settings:\n", "settings: []\nx:\n", 17, "`x` is not a key"),
    ("name: sample", "name: [", 4, "did not find"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), CHANGES, ids=[f"{new[:40]}" for _, new, _, _ in CHANGES])
def test_a_wrong_manifest_is_refused_with_the_place(old: str, new: str, line: int | None, message: str) -> None:
    assert old in MANIFEST
    found = problems(MANIFEST.replace(old, new, 1))
    assert any(message in text and line == at for at, text in found), found


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"- a", b"a: b", b"\t", b"x" * 70_000, b"a: &a [*a]", b"[" * 5000])
def test_what_is_no_manifest_at_all_is_refused_without_a_traceback(text: str) -> None:
    assert problems(text)


def test_a_tag_makes_no_object() -> None:
    assert "x" == parse_manifest(MANIFEST.replace("sample", "!!python/name:os.system x", 1).encode(), "").name


def test_unknown_keys_are_all_told_at_once() -> None:
    text = MANIFEST.replace("version: 1", "version: 1\ncolour: red").replace("scope: host", "scope: host, shell: x")
    assert ["colour", "shell"] == sorted(message.split("`")[1] for _, message in problems(text))


RESTARTED = """version: 1
name: sample
description: a sample
roles: [server]
process:
  { scope: instance, program: sample, pointer: current, reload: restart, links: [tls.crt], watched_with: { style: [b] }}
enforces:
  { anchors: true, identifiers: false, crls: false, separate_trust: true, refuse_all: true, server_names: false }
settings:
  style: { type: choice, values: [a, b], description: a }
  edition: { type: choice, values: ["2.7", "3.5"], description: b }
conditions:
  - { setting: style, value: b, needs: { edition: ["3.5"] } }
doors: { names: [main, other], one_port: true }
"""


def test_what_settings_need_of_each_other_is_read() -> None:
    manifest = parse_manifest(RESTARTED.encode(), "runtime.yaml")
    runtime = to_runtime(manifest, "digest")
    assert (Condition(setting="style", value="b", needs=(("edition", ("3.5",)),)),) == runtime.conditions
    assert (Reload.RESTART, (("style", ("b",)),)) == (runtime.reload, runtime.watched_with)
    assert (Doors(names=("main", "other"), one_port=True), ("tls.crt",)) == (runtime.doors, manifest.links)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("watched_with: { style: [b] }", "watched_with: { style: [c] }", "`style` is no setting that can be c"),
        ("value: b,", "value: c,", "`style` is no setting that can be c"),
        ('edition: ["3.5"]', 'edition: ["3.6"]', "`edition` is no setting that can be 3.6"),
        ('edition: ["3.5"]', "colour: [red]", "`colour` is no setting that can be red"),
        ("setting: style", "setting: Style", "`setting`"),
        ("reload: restart", "reload: signal-hup", "`reload: restart` is not needed"),
        ("links: [tls.crt]", "links: [other.crt]", "files that every release holds"),
        ("links: [tls.crt]", "links: [../tls.crt]", "a link's name"),
        ("names: [main, other]", "names: [Main]", "a listener's name"),
        ("one_port: true", "one_port: 1", "true or false"),
    ],
)
def test_conditions_that_nobody_would_notice_are_refused(old: str, new: str, message: str) -> None:
    assert old in RESTARTED
    found = problems(RESTARTED.replace(old, new, 1))
    assert any(message in text for _, text in found), found
