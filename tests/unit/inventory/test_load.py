"""Files and folders to the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mtlsctl.errors import InventoryError
from mtlsctl.inventory import codes, load_inventory
from mtlsctl.model.identifiers import DnsId
from mtlsctl.model.topology import (
    AuthorityPolicy,
    Bind,
    Caller,
    CertificatePolicy,
    DirectoryHost,
    Edge,
    KeyAlgorithm,
    Listener,
    ListenerId,
    SshHost,
)
from tests.unit.inventory.runtimes import RUNTIMES

if TYPE_CHECKING:
    from pathlib import Path

    from mtlsctl.inventory import LoadedInventory
    from mtlsctl.model.diagnostic import Diagnostic
    from tests.unit.inventory.conftest import Load, Refuse

HEAD = "version: 1\nname: calendar\n"
HERE = "hosts:\n  here: { directory: ./out }\n"
MAIL = "  mail: { runtime: node, hosts: [here] }\n"
SCHEDULE = "  schedule: { runtime: nginx, hosts: [here], listen: 8443, callers: [mail] }\n"
WHOLE = HEAD + HERE + "services:\n" + SCHEDULE + MAIL


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def load_folder(folder: Path) -> LoadedInventory:
    return load_inventory(folder, RUNTIMES, root=folder.parent)


def refused(path: Path, root: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(InventoryError) as caught:
        load_inventory(path, RUNTIMES, root=root)
    return caught.value.diagnostics


SPREAD = {
    "estate.yaml": HEAD,
    "hosts/here.yml": HERE,
    "services/a.yaml": "services:\n" + MAIL,
    "services/b/c.yaml": "services:\n" + SCHEDULE,
    "notes.txt": "no: yaml",
    ".hidden/x.yaml": "{",
    ".swap.yaml": "{",
}


def test_a_folder_says_the_same_as_one_file(tmp_path: Path, load: Load) -> None:
    loaded = load_folder(write(tmp_path / "inventory", SPREAD))
    assert load(WHOLE).inventory.digest == loaded.inventory.digest
    names = ["estate.yaml", "hosts/here.yml", "services/a.yaml", "services/b/c.yaml"]
    assert names == [str(path.relative_to(tmp_path / "inventory")) for path in loaded.files]


def test_a_place_in_a_folder_is_named_from_the_root(tmp_path: Path) -> None:
    loaded = load_folder(write(tmp_path / "inventory", SPREAD))
    ((edge, span),) = loaded.inventory.edges()
    assert Edge("mail", ListenerId("schedule", "main")) == edge
    assert str(span) == f"inventory/services/b/c.yaml:2:{SCHEDULE.index('mail') + 1}"


def test_a_file_outside_the_root_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = write(tmp_path, {"x.yaml": "version: 2\n"}) / "x.yaml"
    spans = {one.span.file for one in refused(path, tmp_path / "elsewhere") if one.span}
    assert spans == {str(path)}


@pytest.mark.parametrize(
    ("again", "what"),
    [
        ("services:\n" + MAIL, "mail"),
        (HERE, "here"),
        ("version: 1\n", "version"),
        ("name: other\n", "name"),
        ("defaults: {}\n", None),
    ],
)
def test_what_stands_in_two_files_is_an_error_with_both_places(again: str, what: str | None, tmp_path: Path) -> None:
    folder = write(tmp_path / "inventory", {**SPREAD, "z.yaml": again})
    if what is None:
        load_folder(folder)
        return
    (one,) = refused(folder, tmp_path)
    assert (codes.DUPLICATE_KEY, f"`{what}` is given twice") == (one.code, one.message)
    assert one.span is not None
    assert one.span.file == "inventory/z.yaml"
    assert len(one.related) == 1
    assert one.related[0][0].file != one.span.file


def test_broken_files_of_a_folder_are_all_reported_and_nothing_that_follows_from_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "inventory", {**SPREAD, "services/a.yaml": "services: [", "hosts/here.yml": "a: *b"})
    assert [one.code for one in refused(folder, tmp_path)] == [codes.ALIAS, codes.SYNTAX]


def test_what_is_wrong_in_one_file_hides_nothing_of_the_others(tmp_path: Path) -> None:
    again = "services:\n" + MAIL + "  mail: { runtime: node, hosts: [here] }\n"
    wrong = "services:\n" + SCHEDULE.replace("[mail]", "[mail, mial]")
    folder = write(tmp_path / "inventory", {**SPREAD, "services/a.yaml": again, "services/b/c.yaml": wrong})
    found = [(one.code, one.span.file if one.span else "") for one in refused(folder, tmp_path)]
    assert found == [
        (codes.DUPLICATE_KEY, "inventory/services/a.yaml"),
        (codes.UNKNOWN_CALLER, "inventory/services/b/c.yaml"),
    ]


def test_nothing_follows_from_what_stands_in_the_second_of_two_files(tmp_path: Path) -> None:
    twice = {"y.yaml": "services: {}\nservices:\n  desk: {}\n", "z.yaml": "services:\n  mail: { listen: 7443 }\n"}
    wrong = "services:\n" + SCHEDULE.replace("[mail]", "[mail, desk]")
    folder = write(tmp_path / "inventory", {**SPREAD, **twice, "services/b/c.yaml": wrong})
    assert [one.code for one in refused(folder, tmp_path)] == [codes.DUPLICATE_KEY] * 2


def test_a_file_that_cannot_be_read_keeps_the_rest_from_being_judged(tmp_path: Path) -> None:
    folder = write(tmp_path / "inventory", {**SPREAD, "services/a.yaml": "services: {", "z.yaml": "colour: red\n"})
    assert [one.code for one in refused(folder, tmp_path)] == [codes.SYNTAX]


def test_a_symbolic_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "inventory", SPREAD)
    (tmp_path / "secret.yaml").write_text("key: value\n", encoding="utf-8")
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    assert [one.code for one in refused(folder, tmp_path)] == [codes.UNREADABLE] * 2


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "inventory", SPREAD)
    os.mkfifo(folder / "pipe.yaml")
    assert [one.code for one in refused(folder, tmp_path)] == [codes.UNREADABLE]


def test_what_does_not_exist_is_an_error_and_so_is_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing.yaml", tmp_path / "empty"):
        assert [one.code for one in refused(path, tmp_path)] == [codes.UNREADABLE]


def test_hosts_become_what_was_written(tmp_path: Path, load: Load) -> None:
    words = (
        "hosts:\n"
        "  here: { directory: ./out/, seen_as: /srv/, pid_files: { schedule: run/s.pid, nginx: run/n.pid } }\n"
        "  far: { address: 2001:DB8:0::1, port: 2222, user: deploy, jump: b.example:22, become: true,"
        " identity_file: ~/.ssh/id }\n"
    )
    hosts = load(HEAD + words + "services: {}\n").inventory.hosts
    pids = (("nginx", "run/n.pid"), ("schedule", "run/s.pid"))
    assert hosts["here"] == DirectoryHost(name="here", directory=str(tmp_path / "out"), seen_as="/srv/", pid_files=pids)
    assert hosts["far"] == SshHost(
        name="far",
        address="2001:db8::1",
        port=2222,
        user="deploy",
        identity_file="~/.ssh/id",
        jump="b.example:22",
        become=True,
    )


def test_a_service_becomes_what_was_written(load: Load) -> None:
    words = """\
  schedule:
    runtime: nginx
    hosts: [here]
    names: [A.example, b.example]
    addresses: true
    listeners:
      - { port: 8443, bind: host, protocols: ["1.3", 1.2], callers: [mail] }
    settings: { upstream: "http://127.0.0.1:8080", egress: { mail: 9002, desk: 9001 } }
    certificate: { lifetime: 30d, renew_before: 12h }
    certification_authority: { key: ed25519, generation: 3 }
  mail: { runtime: node, hosts: [here], listen: 7443, callers: [schedule] }
  desk: { runtime: node, hosts: [here], listen: 7444, callers: [schedule] }
"""
    service = load(HEAD + HERE + "services:\n" + words).inventory.services["schedule"]
    assert service.names == (DnsId("a.example"), DnsId("b.example"))
    assert service.addresses
    assert service.listeners == (Listener(port=8443, bind=Bind.HOST, callers=(Caller(service="mail"),)),)
    assert service.settings == (("egress", (("desk", 9001), ("mail", 9002))), ("upstream", "http://127.0.0.1:8080"))
    assert service.certificate == CertificatePolicy(lifetime=timedelta(days=30), renew_before=timedelta(hours=12))
    assert service.authority == AuthorityPolicy(key=KeyAlgorithm.ED25519, generation=3)


def test_a_service_without_names_gets_one_of_the_estate(load: Load) -> None:
    assert load(WHOLE).inventory.services["mail"].names == (DnsId("mail.calendar.internal"),)


def test_defaults_reach_every_service_and_give_way_key_by_key(load: Load) -> None:
    defaults = (
        "defaults: { certificate: { key: rsa-3072, lifetime: 60d }, certification_authority: { lifetime: 900d } }\n"
    )
    own = "  mail: { runtime: node, hosts: [here], certificate: { lifetime: 40d } }\n"
    services = load(HEAD + defaults + HERE + "services:\n" + SCHEDULE + own).inventory.services
    inherited = CertificatePolicy(key=KeyAlgorithm.RSA_3072, lifetime=timedelta(days=60))
    assert services["schedule"].certificate == inherited
    assert services["schedule"].authority.lifetime == timedelta(days=900)
    assert services["mail"].certificate == CertificatePolicy(key=KeyAlgorithm.RSA_3072, lifetime=timedelta(days=40))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("listen: 8443", "listeners: [{ port: 8443"),
        ("directory: ./out", "directory: out/, address: 127.0.0.1"),
        ("runtime: nginx", "certificate: { lifetime: 90d }, runtime: 'nginx'"),
        ("name: calendar", "name: calendar # a comment\ntrust: { model: service-ca }"),
        ("hosts: [here]", "names: [mail.calendar.internal], addresses: false, hosts: [here]"),
    ],
)
def test_another_way_to_say_the_same_has_the_same_digest(old: str, new: str, load: Load) -> None:
    text = WHOLE[: WHOLE.rindex(old)] + new + WHOLE[WHOLE.rindex(old) + len(old) :]
    if "listeners" in new:
        text = text.replace("callers: [mail]", "callers: [mail] }]")
    assert load(WHOLE).inventory.digest == load(text).inventory.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("8443", "8444"),
        ("callers: [mail]", "callers: []"),
        ("name: calendar", "name: diary"),
        ("directory: ./out", "directory: ./out2"),
        ("directory: ./out", "directory: ./out, seen_as: /"),
        ("runtime: node", "runtime: pem"),
        ("listen: 8443", "listen: 8443, certification_authority: { generation: 2 }"),
        ("listen: 8443", "listen: 8443, client_certificate: optional"),
        ("listen: 8443", "listen: 8443, forward_identity: headers"),
        ("listen: 8443", "listen: 8443, client_certificate: none"),
        ("listen: 8443", "listen: 8443, bind: host"),
        ("listen: 8443", "listen: 8443, certificate: { lifetime: 91d }"),
        ("listen: 8443", "listen: 8443, names: [a.example]"),
        ("listen: 8443", "listen: 8443, addresses: true"),
        ("listen: 8443", 'listen: 8443, settings: { upstream: "http://a.example" }'),
    ],
)
def test_another_meaning_has_another_digest(old: str, new: str, load: Load) -> None:
    assert load(WHOLE).inventory.digest != load(WHOLE.replace(old, new, 1)).inventory.digest


def test_the_order_of_names_counts_for_the_first_alone(load: Load) -> None:
    def digest(names: str) -> str:
        return load(WHOLE.replace("listen: 8443", f"listen: 8443, names: [{names}]")).inventory.digest

    assert digest("a.example, b.example, c.example") == digest("a.example, c.example, b.example")
    assert digest("a.example, b.example") != digest("b.example, a.example")


def test_the_digest_does_not_depend_on_where_the_repository_lies(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, {"i.yaml": WHOLE}) for name in ("one", "two"))
    digests = {load_inventory(place / "i.yaml", RUNTIMES, root=place).inventory.digest for place in (one, two)}
    assert len(digests) == 1


def test_problems_are_sorted_by_place(refuse: Refuse) -> None:
    found = refuse(WHOLE.replace("[mail]", "[mial, nobody]").replace("[here]", "[there, her]") + "colour: red\n")
    assert list(found) == sorted(found, key=lambda one: one.order)
    assert [one.code for one in found[:4]] == [codes.UNKNOWN_HOST] * 2 + [codes.UNKNOWN_CALLER] * 2


def test_an_unknown_caller_points_at_the_word_and_says_who_may_be_meant(refuse: Refuse) -> None:
    (one,) = refuse(WHOLE.replace("callers: [mail]", "callers: [mial]"))
    assert one.span is not None
    assert WHOLE.splitlines()[one.span.line - 1].replace("[mail]", "[mial]")[one.span.column - 1 :].startswith("mial]")
    assert one.span.end_column - one.span.column == len("mial")
    assert one.help == "did you mean `mail`?"


def test_columns_count_characters(refuse: Refuse) -> None:
    (one,) = refuse(WHOLE.replace("callers: [mail]", 'names: ["é"], callers: [mail]'))
    (two,) = refuse(WHOLE.replace("callers: [mail]", 'names: ["e"], callers: [mial]'))
    assert one.span is not None
    assert two.span is not None
    assert two.span.column - one.span.column == len('"e"], callers: [')


def test_a_plan_needs_no_slow_library_to_read_its_inventory() -> None:
    slow = ["pydantic", "pydantic_core", "cryptography", "jinja2", "sqlite3", "typer"]
    code = f"import sys, json, mtlsctl.inventory; print(json.dumps([one for one in {slow} if one in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    folder.joinpath(*"d" * 40).mkdir(parents=True)
    with pytest.raises(InventoryError) as caught:
        load_inventory(folder, {}, root=tmp_path)
    assert "folders are nested deeper than 32" in [one.message for one in caught.value.diagnostics]


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text("TOKEN=hunter2")
    (tmp_path / "i.yaml").symlink_to("secret.env")
    with pytest.raises(InventoryError) as caught:
        load_inventory(tmp_path / "i.yaml", {}, root=tmp_path)
    assert ["`i.yaml` is a symbolic link"] == [one.message for one in caught.value.diagnostics]
