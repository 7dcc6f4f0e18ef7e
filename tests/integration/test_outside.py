"""Partners and banks through the years of an estate, by the command line: added, renewed, removed, and what is refused.

After each step nothing is left to do, the state is sound, and handshakes on the applied files say what is declared.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsctl.pki.stores import parse_bundle
from tests.integration.authorities import Authority, common_name, subject
from tests.integration.authorities import root as root_for
from tests.integration.repository import Estate, Inventory, Kept, calendar, make_estate, releases_named
from tests.integration.test_scenarios import make_old_estate, plan_then

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTNER = subject(("O", "Acme"), ("CN", "Acme Root"))
OLD, NEW, BANK = "partners/acme.pem", "partners/acme-2.pem", "partners/bank.pem"


def root(name: x509.Name, *, days: int = 300) -> Authority:
    return root_for(name, days=days)


def sha256_of(authority: Authority) -> str:
    return hashlib.sha256(der_of(authority)).hexdigest()


def der_of(authority: Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


def partner(*files: str, **authorization: Any) -> dict[str, Any]:
    return {"name": "acme", "certificates": list(files), **(authorization or {"identities": ["api.acme.example"]})}


def with_partner(*files: str, **authorization: Any) -> Inventory:
    """The partner calls nginx beside two services, and two services call the bank."""
    inventory = calendar(
        external_servers=[
            {"name": "bank", "endpoint": "api.bank.example:443", "certificates": [BANK], "callers": ["mail", "social"]}
        ]
    )
    inventory["services"]["schedule"]["callers"].append(partner(*files, **authorization))
    return inventory


def write(estate: Estate, file: str, *authorities: Authority) -> None:
    place = estate.folder / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"".join(one.pem for one in authorities))


@pytest.fixture(scope="module")
def acme() -> Authority:
    return root(PARTNER)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, acme: Authority) -> Kept:
    place = tmp_path_factory.mktemp("outside")
    estate = make_estate(place / "estate", with_partner(OLD))
    write(estate, OLD, acme)
    write(estate, BANK, root(common_name("Bank Root")))
    estate.converge()
    return Kept(estate, place / "kept")


@pytest.fixture
def estate(installed: Kept) -> Estate:
    return installed.back()


def bundles(estate: Estate, service: str, file: str) -> Iterator[set[bytes]]:
    """The file in every release of a service that is on a host, those that are live no more included."""
    for path in estate.folder.glob(f"out/*/etc/mtlsctl/{service}/releases/*/{file}"):
        yield set(parse_bundle(path.read_bytes()))


def live_bundle(estate: Estate, service: str, file: str) -> set[bytes]:
    (release,) = {one for one in releases_named(estate) if one.parent.parent.name == service}
    return set(parse_bundle((release / file).read_bytes()))


def altered(estate: Estate, change: Callable[[sqlite3.Connection], object]) -> None:
    """What somebody does who can write the state."""
    with closing(sqlite3.connect(estate.state)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("PRAGMA foreign_keys = OFF")
        change(database)
        database.commit()


# --- what is done ---------------------------------------------------------------------------------------------------


def test_a_partner_and_a_bank_are_in_the_files_of_those_that_deal_with_them(estate: Estate, acme: Authority) -> None:
    assert der_of(acme) in live_bundle(estate, "schedule", "clients/main.pem")
    bank = set(parse_bundle((estate.folder / BANK).read_bytes()))
    assert [bank, bank] == [live_bundle(estate, one, "servers/bank.pem") for one in ("mail", "social")]
    assert [] == list(bundles(estate, "report", "servers/bank.pem"))
    assert all(der_of(acme) not in one for one in bundles(estate, "report", "clients/main.pem"))


def test_the_plan_says_first_who_comes_from_outside_and_who_goes_there(tmp_path: Path, acme: Authority) -> None:
    estate = make_estate(tmp_path / "estate", with_partner(OLD))
    write(estate, OLD, acme)
    write(estate, BANK, root(common_name("Bank Root")))
    seen = estate.good("plan").out
    access, _, attention = seen.partition("Attention")
    assert "acme (outside)  may call  schedule:18443" in access
    assert "M2111 mail, social may call bank (outside) at api.bank.example:443" in " ".join(attention.split())
    assert "mtlsctl show --anchors mail" in " ".join(attention.split())
    document = estate.good("plan", "-o", "json").json
    (grant,) = [one for one in document["grants"] if one["outside"]]
    assert {"certificates": [sha256_of(acme)], "identities": ["api.acme.example"]} == grant["outside"]


def test_verify_leaves_out_what_is_not_ours_and_counts_it(estate: Estate) -> None:
    verified = estate.good("verify", "--embedded")
    assert "acme (outside) -> schedule   left out: the caller's key is not ours" in verified.out
    assert "mail -> bank (outside)   left out: the server is not ours" in verified.out
    assert "3 calls from or to the outside left out" in " ".join(verified.out.split())
    document = estate.good("verify", "--embedded", "-o", "json").json
    assert 3 == document["summary"]["outside"] == len(document["outside"])
    assert 0 == document["summary"]["not_probed"]


def test_what_is_tried_of_a_partner_is_that_nobody_else_passes_for_it(estate: Estate) -> None:
    results = estate.good("verify", "--embedded", "-o", "json").json["results"]
    tried = [one for one in results if one["caller"] == "acme (outside)"]
    assert tried
    assert {"refused"} == {one["observed"] for one in tried}


def test_a_partner_s_new_ca_comes_beside_the_old_one_and_the_old_one_goes(estate: Estate, acme: Authority) -> None:
    new = root(PARTNER)
    other = root(common_name("Acme Root 2"))
    write(estate, NEW, new)
    estate.write(with_partner(OLD, NEW))
    refused = estate.run("plan")
    assert (7, True) == (refused.code, "M2022" in refused.err), refused  # two keys under one name
    write(estate, NEW, other)
    estate.converge()
    assert {der_of(acme), der_of(other)} <= live_bundle(estate, "schedule", "clients/main.pem")
    estate.write(with_partner(NEW))
    estate.converge()
    assert der_of(acme) not in live_bundle(estate, "schedule", "clients/main.pem")
    assert der_of(other) in live_bundle(estate, "schedule", "clients/main.pem")


def test_a_ca_whose_file_is_gone_is_trusted_until_the_new_one_is_everywhere(estate: Estate, acme: Authority) -> None:
    """One apply for both: the release in between trusts the old one too, from the state."""
    other = root(common_name("Acme Root 2"))
    (estate.folder / OLD).unlink()
    write(estate, NEW, other)
    inventory = with_partner(NEW)
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}  # so that there are waves
    estate.write(inventory)
    estate.converge()
    both = {der_of(acme), der_of(other)}
    assert any(both <= bundle for bundle in bundles(estate, "schedule", "clients/main.pem"))
    assert der_of(acme) not in live_bundle(estate, "schedule", "clients/main.pem")


def test_a_partner_that_is_taken_out_is_refused_from_then_on(estate: Estate, acme: Authority) -> None:
    estate.write(calendar())
    seen = estate.good("plan").out
    assert "acme (outside)  may no longer call  schedule:18443" in seen
    estate.converge()
    assert der_of(acme) not in live_bundle(estate, "schedule", "clients/main.pem")
    assert [] == estate.good("status", "-o", "json").json["outside"]


def test_an_identity_more_is_an_access_change_without_a_new_certificate(estate: Estate) -> None:
    estate.write(with_partner(OLD, identities=["api.acme.example", "CN=batch,O=Acme"]))
    seen = estate.good("plan", "-o", "json").json
    assert [("change", "acme (outside)")] == [(one["op"], one["caller"]) for one in seen["grants"]]
    assert [] == [one for one in seen["actions"] if one["id"].startswith("certificate/")]
    estate.converge()


def test_everybody_of_a_partner_s_ca_needs_a_listener_where_no_names_are_compared(estate: Estate) -> None:
    estate.write(with_partner(OLD, authorize="any-member"))
    seen = estate.good("plan", "-o", "json").json  # the CAs of services vouch for one of them each
    assert "M2110" in {one["code"] for one in seen["risks"]}
    estate.converge()
    estate.write(with_partner(OLD, authorize="any-member") | {"trust": {"model": "shared-ca"}})
    refused = estate.run("plan")
    assert (7, True) == (refused.code, "M2020" in refused.err), refused


def test_show_prints_what_the_bank_has_to_trust(estate: Estate) -> None:
    shown = estate.good("show", "--anchors", "mail")
    (ca,) = x509.load_pem_x509_certificates(shown.out.encode())
    leaf = x509.load_pem_x509_certificates(
        next(estate.folder.glob("out/*/etc/mtlsctl/mail/current/tls.crt")).read_bytes()
    )
    leaf[0].verify_directly_issued_by(ca)
    (one,) = estate.good("show", "--anchors", "mail", "-o", "json").json["anchors"]
    assert (["mail@web1"], shown.out) == (one["instances"], one["pem"])
    refused = estate.run("show", "--anchors", "nobody")
    assert (64, True) == (refused.code, "M9110" in refused.err), refused


def test_status_and_show_name_what_is_trusted_of_others(estate: Estate, acme: Authority) -> None:
    status = estate.good("status", "-o", "json").json["outside"]
    held = {one["name"]: (one["certificate_sha256"], one["subject"], one["state"]) for one in status}
    assert (sha256_of(acme), "CN=Acme Root,O=Acme", "ok") == held["acme"]
    assert {"acme", "bank"} == held.keys()
    live = {one["instance"]: one for one in estate.good("show", "-o", "json").json["live"]}
    (listener,) = live["schedule@web1"]["listeners"]
    assert f"acme (outside) sha256:{sha256_of(acme)}" in listener["anchors"]
    assert "CN=api.acme.example" in {one["subject"] for one in listener["members"]}


def test_inspect_knows_a_partner_s_ca_and_whom_it_signed(estate: Estate, acme: Authority, tmp_path: Path) -> None:
    def inspected(file: Path | str) -> tuple[dict[str, Any], str]:
        document = estate.run("inspect", str(file), "-o", "json").json
        return document["certificates"][0]["estate"], " ".join(estate.run("inspect", str(file)).out.split())

    ca, text = inspected(OLD)
    (door,) = ca["let_in_by"]
    assert ("outside", ["acme"]) == (ca["role"], ca["outside"])
    assert ("schedule@web1", ["api.acme.example"]) == (door["instance"], door["members"])
    assert "the CA of acme (outside)" in text
    assert "opens schedule@web1:18443 to api.acme.example" in text
    declared, _ = inspected(acme.leaf(tmp_path / "declared", common_name("api.acme.example")).cert)
    assert ("outside_member", 1) == (declared["role"], len(declared["let_in_by"]))
    other, text = inspected(acme.leaf(tmp_path / "other", common_name("other.acme.example")).cert)
    assert ("outside_member", []) == (other["role"], other["let_in_by"])
    assert "signed by the CA of acme (outside)" in text
    assert "trusted by nobody here" in text
    impostor, _ = inspected(root(PARTNER).leaf(tmp_path / "impostor", common_name("api.acme.example")).cert)
    assert ("stranger", []) == (impostor["role"], impostor["outside"])
    bank, _ = inspected(BANK)
    assert {"mail@web1", "social@web2"} == {one["caller"] for one in bank["believed_by"]}


# --- what is refused ------------------------------------------------------------------------------------------------


def short_lived() -> Authority:
    return root(PARTNER, days=-1)


def below_another() -> Authority:
    return root(PARTNER).intermediate(common_name("Acme Issuing"))


@pytest.mark.parametrize("command", ["validate", "plan", "apply"])
@pytest.mark.parametrize(
    ("make", "code"),
    [(below_another, "M1160"), (short_lived, "M2025"), (lambda: root(common_name("mail")), "M2022")],
    ids=["only an intermediate", "ended", "with the name of a service"],
)
def test_a_file_that_cannot_be_trusted_is_refused_with_its_place(
    tmp_path: Path, command: str, make: Callable[[], Authority], code: str
) -> None:
    estate = make_estate(tmp_path / "estate", with_partner(OLD))
    write(estate, OLD, make())
    write(estate, BANK, root(common_name("Bank Root")))
    ran = estate.run(command, *(["--yes"] if command == "apply" else []))
    if command == "validate" and code == "M2022":
        assert 0 == ran.code, ran  # what a name means is for the plan
        return
    assert 7 == ran.code, ran
    assert ("M1160" if command == "validate" else code) in ran.said
    assert OLD in ran.said
    assert "inventory.yaml:" in ran.said
    assert 0 == estate.good("state", "show", "-o", "json").json["authorities"]


@pytest.mark.parametrize("command", ["validate", "plan"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "M1051"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "M1160"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "M1051"),
        (None, "M1050"),
    ],
    ids=["empty", "no certificate in it", "a key", "missing"],
)
def test_a_file_that_holds_no_certificate_is_refused(
    tmp_path: Path, command: str, content: bytes | None, code: str
) -> None:
    estate = make_estate(tmp_path / "estate", with_partner(OLD))
    write(estate, BANK, root(common_name("Bank Root")))
    if content is not None:
        (estate.folder / OLD).write_bytes(content)
    ran = estate.run(command)
    assert (7, True) == (ran.code, code in ran.said), ran
    assert "AAAA" not in ran.said  # what the file holds is nobody's business, least of all a key


def test_a_link_out_of_the_repository_is_refused(tmp_path: Path, acme: Authority) -> None:
    estate = make_estate(tmp_path / "estate", with_partner(OLD))
    write(estate, BANK, root(common_name("Bank Root")))
    (tmp_path / "elsewhere.pem").write_bytes(acme.pem)
    (estate.folder / OLD).symlink_to(tmp_path / "elsewhere.pem")
    ran = estate.run("plan")
    assert (7, True) == (ran.code, "M1050" in ran.err), ran


def test_a_live_partner_s_ca_that_has_ended_keeps_nobody_from_renewing(tmp_path: Path) -> None:
    """A warning: what is ours goes on, and theirs is refused by every server by itself."""
    place = Estate(folder=tmp_path / "estate")
    ended = root(PARTNER, days=-2)
    write(place, OLD, ended)
    write(place, BANK, root(common_name("Bank Root")))
    estate = make_old_estate(place.folder, with_partner(OLD), days=35)
    assert [] == [one.code for one in plan_then(estate, days=-34).warnings]
    soon, now = plan_then(estate, days=-10), plan_then(estate, days=0)
    assert [["M2025"], ["M2025"]] == [[one.code for one in plan.warnings] for plan in (soon, now)]
    inventory = with_partner(OLD)
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    estate.converge()
    assert der_of(ended) in live_bundle(estate, "schedule", "clients/main.pem")
    status = estate.run("status", "-o", "json").json["outside"]
    assert {"acme": "expired", "bank": "ok"} == {one["name"]: one["state"] for one in status}


# --- who can write the state ----------------------------------------------------------------------------------------


def test_a_certificate_that_was_swapped_in_the_state_is_trusted_by_nobody(estate: Estate, acme: Authority) -> None:
    """The file is gone, so the release in between would take the certificate from the state."""
    evil = root(PARTNER)

    def swap(database: sqlite3.Connection) -> None:
        database.execute("UPDATE certificates SET der = ? WHERE sha256 = ?", (der_of(evil), sha256_of(acme)))

    altered(estate, swap)
    (estate.folder / OLD).unlink()
    write(estate, NEW, root(common_name("Acme Root 2")))
    inventory = with_partner(NEW)
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (1, True) == (ran.code, "M3050" in ran.said), ran
    assert all(der_of(evil) not in one for one in bundles(estate, "schedule", "clients/main.pem"))


def test_a_certificate_that_was_added_to_what_is_live_is_trusted_by_nobody(estate: Estate) -> None:
    """Both rows fit: the certificate is there under its digest, and the live release is said to trust it."""
    evil = root(common_name("Acme Root too"))

    def add(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO certificates VALUES (?, ?)", (sha256_of(evil), der_of(evil)))
        for table, column in _texts(database):
            for rowid, text in database.execute(f"SELECT rowid, {column} FROM {table}").fetchall():  # noqa: S608
                if isinstance(text, str) and '["acme","' in text.replace(" ", ""):
                    changed = _with_anchor(json.loads(text), sha256_of(evil))
                    place = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
                    database.execute(place, (json.dumps(changed, separators=(",", ":")), rowid))

    altered(estate, add)
    inventory = with_partner(OLD)
    inventory["services"]["mail"]["certification_authority"] = {"generation": 2}
    estate.write(inventory)
    ran = estate.run("apply", "--yes")
    assert (1, True) == (ran.code, "M3050" in ran.said), ran
    assert all(der_of(evil) not in one for one in bundles(estate, "schedule", "clients/main.pem"))


def _texts(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table != "journal":
            for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.upper() == "TEXT":
                    yield table, column


def _with_anchor(value: Any, sha256: str) -> Any:
    """Wherever a list names the partner's CA, another one beside it: as an anchor, and as who signed a member."""
    if isinstance(value, dict):
        return {key: _with_anchor(one, sha256) for key, one in value.items()}
    if isinstance(value, list):
        more = [[*one[:-1], sha256] for one in value if isinstance(one, list) and one[-2:-1] == ["acme"]]
        return [*(_with_anchor(one, sha256) for one in value), *more]
    return value
