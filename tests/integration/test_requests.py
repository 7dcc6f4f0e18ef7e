"""Certificates for keys that somebody else made and keeps: what is planned, delivered, proven, and what waits."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mtlsctl.pki.keys import spki_sha256
from tests.integration.canaries import dump_of
from tests.integration.repository import Estate, Inventory, Kept, calendar, make_estate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.repository import Ran

REQUEST = "requests/report.csr"


@dataclass(frozen=True)
class Owner:
    """Somebody with a key that mtlsctl never sees, unless it is put on a host."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def spki(self) -> str:
        return spki_sha256(self.key.public_key())

    def asks(self, estate: Estate, path: str = REQUEST, *names: str) -> None:
        place = estate.folder / path
        place.parent.mkdir(exist_ok=True)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "report")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        place.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    @property
    def pem(self) -> bytes:
        kind = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())

    def puts_key(self, estate: Estate, service: str = "report", *, as_of: Owner | None = None) -> Path:
        place = keys_of(estate, service) / f"{(as_of or self).spki}.key"
        place.write_bytes(self.pem)
        place.chmod(0o600)
        return place


def new_owner() -> Owner:
    return Owner(ec.generate_private_key(ec.SECP256R1()))


def keys_of(estate: Estate, service: str = "report") -> Path:
    return estate.folder / "out/web2/etc/mtlsctl" / service / "keys"


def release_of(estate: Estate, service: str = "report") -> Path:
    current = estate.folder / "out/web2/etc/mtlsctl" / service / "current"
    return current.parent / current.readlink()


def leaf_of(estate: Estate, service: str = "report") -> x509.Certificate:
    return x509.load_pem_x509_certificate((release_of(estate, service) / "tls.crt").read_bytes())


def with_request(service: str = "report", path: str = REQUEST, **changes: Any) -> Inventory:
    """`report` only calls, so that its doors need no server of ours; `pem` is just the files."""
    inventory = calendar()
    inventory["services"]["report"] = {"runtime": "pem", "hosts": ["web2"]}
    inventory["services"]["schedule"]["callers"] = ["mail", "social", "report"]
    inventory["services"][service] = {
        **inventory["services"][service],
        "certificate_request": path,
        **changes,
    }
    return inventory


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Owner]:
    place = tmp_path_factory.mktemp("requests")
    estate, owner = make_estate(place / "estate"), new_owner()
    owner.asks(estate)
    estate.write(with_request())
    estate.good("apply", "--yes")
    return Kept(estate, place / "kept"), owner


@pytest.fixture
def estate(installed: tuple[Kept, Owner]) -> Estate:
    return installed[0].back()


@pytest.fixture
def owner(installed: tuple[Kept, Owner]) -> Owner:
    return installed[1]


def said(ran: Ran) -> str:
    return " ".join(ran.said.split())


# --- chain and bundles are handed back ------------------------------------------------------------------------------


def test_a_plan_says_whose_key_it_is_and_asks_for_no_key(tmp_path: Path) -> None:
    estate = make_estate(tmp_path / "estate")
    new_owner().asks(estate)
    estate.write(with_request())
    ran = estate.run("plan", "--detailed-exitcode")
    assert ran.code == 2
    assert f"M2105 whoever holds the key of {REQUEST} is report@web2 to its peers" in said(ran)
    assert "the key stays with its owner" in said(ran)
    actions = {one["id"]: one for one in estate.run("plan", "-o", "json").json["actions"]}
    assert [one for one in actions if one.startswith("key/report@")] == []
    assert [one for one in actions if one.startswith("key/mail@")] != []
    after = actions["certificate/report@web2"]["after"]
    assert (len(after["request_sha256"]), after["same_key"]) == (64, False)


def test_chain_and_bundles_are_handed_back_and_no_key_is_made(estate: Estate, owner: Owner) -> None:
    release = release_of(estate)
    assert {"tls.crt", "servers/schedule.pem"} == {
        str(one.relative_to(release)) for one in release.rglob("*") if one.is_file()
    }
    assert not keys_of(estate).exists()
    leaf = leaf_of(estate)
    assert leaf.public_key() == owner.key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=report"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["report.calendar.internal"]
    assert estate.good("plan", "--detailed-exitcode").out.startswith("Nothing to change.")
    assert estate.run("apply", "--yes").out.startswith("Nothing to change.")


def test_its_call_is_tried_with_a_probe_certificate_that_is_on_record(estate: Estate) -> None:
    verified = estate.good("verify", "--embedded", "-o", "json").json
    tried = [
        one for one in verified["results"] if one["caller"] == "report" and one["probe"]["presented"] == "delivered"
    ]
    assert {("schedule", "allowed")} == {(one["listener"].partition(":")[0], one["observed"]) for one in tried}
    assert {"probe-certificate"} == {one["probe"]["mode"] for one in tried}
    assert verified["summary"]["not_probed"] == 0
    assert "probe certificates of ten minutes, as their owners keep the keys: report@web2" in said(
        estate.good("verify", "--embedded")
    )
    assert "probe delivered: report@web2" in dump_of(estate.state).decode(errors="replace")
    estate.good("state", "check")


def test_it_is_refused_where_it_is_not_declared(estate: Estate) -> None:
    inventory = with_request()
    inventory["services"]["schedule"]["callers"] = ["mail", "social"]
    inventory["services"]["social"] |= {"listen": 19444, "callers": ["report"]}
    estate.write(inventory)
    estate.good("apply", "--yes")
    verified = estate.good("verify", "--embedded", "-o", "json").json["results"]
    tried = {one["listener"].partition(":")[0]: one for one in verified if one["probe"]["mode"] == "probe-certificate"}
    assert {"schedule": "refused", "social": "allowed"} == {door: one["observed"] for door, one in tried.items()}
    assert {one["verdict"] for one in tried.values()} == {"as_declared"}


def test_without_the_encryption_key_its_call_is_not_probed_and_never_passed(estate: Estate) -> None:
    hidden = estate.key_file.with_name("hidden")
    estate.key_file.rename(hidden)
    try:
        ran = estate.run("verify", "--embedded", "-o", "json")
    finally:
        hidden.rename(estate.key_file)
    tried = [one for one in ran.json["results"] if one["caller"] == "report" and one["expected"] == "allowed"]
    assert {("not probed", "not_probed")} == {(one["observed"], one["verdict"]) for one in tried}
    assert ran.code == 1


def test_a_key_of_its_owner_that_listens_cannot_be_shown_by_a_server_of_ours(tmp_path: Path) -> None:
    estate, owner = make_estate(tmp_path / "estate"), new_owner()
    owner.asks(estate)
    inventory = calendar()
    inventory["services"]["report"]["certificate_request"] = REQUEST
    estate.write(inventory)
    estate.good("apply", "--yes")
    ran = estate.run("verify", "--embedded", "-o", "json")
    doors = {one["listener"].partition(":")[0]: set[str]() for one in ran.json["results"]}
    for one in ran.json["results"]:
        doors[one["listener"].partition(":")[0]].add(one["verdict"])
    assert doors == {"schedule": {"as_declared"}, "report": {"not_probed"}}
    assert "the key of report@web2 is with its owner" in said(estate.run("verify", "--embedded"))


# --- the same request again, and another one ------------------------------------------------------------------------


def test_a_renewal_signs_the_same_request_again_and_says_so(estate: Estate, owner: Owner) -> None:
    estate.write(with_request(certificate={"lifetime": "80d"}))
    before = leaf_of(estate).serial_number
    ran = estate.run("plan")
    assert "lifetime changed, same key" in said(ran)
    assert "M2105" not in ran.said
    assert estate.run("plan", "-o", "json").json["actions"][0]["after"]["same_key"] is True
    estate.good("apply", "--yes")
    assert leaf_of(estate).serial_number != before
    assert leaf_of(estate).public_key() == owner.key.public_key()


def test_another_file_is_signed_for_its_own_reason(estate: Estate) -> None:
    other = Owner(rsa.generate_private_key(65537, 2048))
    other.asks(estate)
    ran = estate.run("plan", "--detailed-exitcode")
    assert ran.code == 2
    assert "certificate request changed, key algorithm changed" in said(ran)
    assert "same key" not in ran.said
    assert "M2105" in ran.said
    estate.good("apply", "--yes")
    assert leaf_of(estate).public_key() == other.key.public_key()
    assert estate.good("plan", "--detailed-exitcode").out.startswith("Nothing to change.")


def test_a_new_request_for_the_same_key_is_signed_and_told_as_the_same_key(estate: Estate, owner: Owner) -> None:
    owner.asks(estate, REQUEST, "report.calendar.internal")
    assert "certificate request changed, same key" in said(estate.run("plan"))


def test_a_plan_that_was_saved_for_one_request_is_not_applied_to_another(estate: Estate) -> None:
    new_owner().asks(estate)
    estate.good("plan", "--out", "calendar.mtlsplan")
    new_owner().asks(estate)
    ran = estate.run("apply", "calendar.mtlsplan")
    assert ran.code == 6, ran
    assert "inventory: what it declares has changed" in said(ran)


def test_an_owner_that_gives_up_gets_a_key_of_ours_in_its_place_and_back(estate: Estate, owner: Owner) -> None:
    ours = with_request()
    del ours["services"]["report"]["certificate_request"]
    estate.write(ours)
    assert "the key's owner changed" in said(estate.run("plan"))
    estate.converge()
    assert (release_of(estate) / "tls.key").is_file()
    assert len(list(keys_of(estate).iterdir())) == 1
    estate.write(with_request())
    estate.good("apply", "--yes")
    assert not (release_of(estate) / "tls.key").exists()
    assert list(keys_of(estate).iterdir()) == []
    assert leaf_of(estate).public_key() == owner.key.public_key()


# --- a program that needs the key -----------------------------------------------------------------------------------


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[Estate, Owner]:
    """`social`, whose files name the key."""
    estate, owner = make_estate(tmp_path / "estate"), new_owner()
    owner.asks(estate, "requests/social.csr")
    estate.write(with_request("social", "requests/social.csr"))
    return estate, owner


def test_what_needs_the_key_waits_for_it_and_says_where_it_is_to_lie(waiting: tuple[Estate, Owner]) -> None:
    estate, owner = waiting
    ran = estate.run("apply", "--yes", "-o", "json")
    assert ran.code == 3
    states = {one["process"]: one for one in ran.json["processes"]}
    assert {"social": "waiting", "mail": "done", "report": "done", "nginx": "done"} == {
        name: one["status"] for name, one in states.items()
    }
    place = keys_of(estate, "social") / f"{owner.spki}.key"
    assert (states["social"]["code"], str(place) in states["social"]["message"]) == ("M4112", True)
    assert keys_of(estate, "social").stat().st_mode & 0o777 == 0o700
    again = estate.run("apply", "--yes")
    assert again.code == 3
    assert "1 process waiting for a key" in said(again)
    assert str(place) in again.out.replace("\n", "").replace(" ", "")
    assert owner.puts_key(estate, "social") == place
    estate.good("apply", "--yes")
    estate.prove()
    assert (release_of(estate, "social") / "tls.key").read_bytes() == owner.pem
    modes = {
        one["probe"]["mode"]
        for one in estate.good("verify", "--embedded", "-o", "json").json["results"]
        if one["caller"] == "social" and one["probe"]["presented"] == "delivered"
    }
    assert modes == {"delivered-key"}


def test_another_key_than_that_of_the_request_is_not_switched_to(waiting: tuple[Estate, Owner]) -> None:
    estate, owner = waiting
    estate.run("apply", "--yes")
    new_owner().puts_key(estate, "social", as_of=owner)
    ran = estate.run("apply", "--yes")
    assert ran.code == 3
    assert "tls.key does not belong to the certificate in tls.crt" in said(ran)
    assert not (keys_of(estate, "social").parent / "current").exists()
    owner.puts_key(estate, "social")
    estate.converge()


def test_a_key_that_others_can_read_is_not_switched_to(waiting: tuple[Estate, Owner]) -> None:
    estate, owner = waiting
    estate.run("apply", "--yes")
    place = owner.puts_key(estate, "social")
    place.chmod(0o644)
    ran = estate.run("apply", "--yes")
    assert ran.code == 3
    assert "tls.key has mode 0644" in said(ran)
    place.chmod(0o600)
    estate.converge()


def test_the_next_key_may_lie_there_before_its_request_and_the_old_release_serves_until_then(
    waiting: tuple[Estate, Owner],
) -> None:
    estate, owner = waiting
    estate.run("apply", "--yes")
    owner.puts_key(estate, "social")
    estate.converge()
    following = new_owner()
    following.puts_key(estate, "social")
    inventory = with_request("social", "requests/social.csr")
    inventory["services"]["mail"]["certificate"] = {"lifetime": "80d"}
    estate.write(inventory)
    estate.converge()
    assert len(list(keys_of(estate, "social").iterdir())) == 2
    following.asks(estate, "requests/social.csr")
    estate.converge()
    assert leaf_of(estate, "social").public_key() == following.key.public_key()
    last = new_owner()
    last.asks(estate, "requests/social.csr")
    assert estate.run("apply", "--yes").code == 3
    assert leaf_of(estate, "social").public_key() == following.key.public_key()
    estate.good("verify", "--embedded")


def test_a_key_that_its_owner_took_away_is_not_made_anew(waiting: tuple[Estate, Owner]) -> None:
    estate, owner = waiting
    estate.run("apply", "--yes")
    place = owner.puts_key(estate, "social")
    estate.converge()
    place.unlink()
    before = leaf_of(estate, "social").serial_number
    estate.converge()
    assert leaf_of(estate, "social").serial_number == before
    estate.write(with_request("social", "requests/social.csr", certificate={"lifetime": "80d"}))
    ran = estate.run("apply", "--yes")
    assert (ran.code, "M4112" in ran.said) == (3, True)
    assert leaf_of(estate, "social").serial_number == before
    owner.puts_key(estate, "social")
    estate.converge()
    assert leaf_of(estate, "social").serial_number != before


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "plan", "apply --yes"])
def test_a_request_that_proves_nothing_is_refused_at_its_place(estate: Estate, command: str) -> None:
    place = estate.folder / REQUEST
    new_owner().asks(estate, "requests/other.csr")
    mine, other = (x509.load_pem_x509_csr(path.read_bytes()) for path in (place, estate.folder / "requests/other.csr"))
    der = other.public_bytes(serialization.Encoding.DER)
    forged = der.replace(other.tbs_certrequest_bytes, mine.tbs_certrequest_bytes)
    pem = x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM)
    place.write_bytes(pem)
    ran = estate.run(*command.split())
    assert (ran.code, "M7317" in ran.said) == (7, True), ran
    line = next(n for n, text in enumerate(estate.inventory.read_text().splitlines(), 1) if REQUEST in text)
    assert f"inventory.yaml:{line}:" in ran.said


def test_one_key_is_not_for_two_instances(estate: Estate, owner: Owner) -> None:
    owner.asks(estate, "requests/again.csr", "again.example")
    inventory = with_request()
    inventory["services"]["mail"]["certificate_request"] = "requests/again.csr"
    estate.write(inventory)
    ran = estate.run("validate")
    assert (ran.code, "M7112" in ran.said) == (7, True)
    assert "mail@web1 and report@web2" in said(ran) or "report@web2 and mail@web1" in said(ran)


def test_names_that_a_request_asks_for_are_ignored_and_said(estate: Estate, owner: Owner) -> None:
    owner.asks(estate, REQUEST, "bank.example", "report.calendar.internal")
    ran = estate.run("plan", "--detailed-exitcode")
    assert ran.code == 2
    assert "M2201" in ran.err
    assert "asks for bank.example, which the certificate of `report` will not carry" in said(ran)
    estate.good("apply", "--yes")
    assert "bank.example" not in str(leaf_of(estate).extensions)


def test_removing_the_service_leaves_nothing_and_asking_again_issues_again(estate: Estate, owner: Owner) -> None:
    inventory = with_request()
    inventory["services"]["schedule"]["callers"] = ["mail", "social"]
    del inventory["services"]["report"]
    estate.write(inventory)
    estate.good("apply", "--yes")
    assert not keys_of(estate).parent.exists()
    estate.write(with_request())
    assert "new instance" in said(estate.run("plan"))
    estate.good("apply", "--yes")
    assert leaf_of(estate).public_key() == owner.key.public_key()


def test_a_state_that_is_restored_knows_the_request(estate: Estate, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    estate.good("state", "backup", str(backup))
    shutil.rmtree(estate.state.parent)
    estate.good("state", "restore", str(backup))
    assert estate.good("plan", "--detailed-exitcode").out.startswith("Nothing to change.")
