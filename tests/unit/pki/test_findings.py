"""What is found wrong with certificates and chains that strangers made; a good one beside each bad one."""

from __future__ import annotations

import ipaddress
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.model.diagnostic import Severity
from mtlsctl.pki import codes
from mtlsctl.pki.contents import Passwords, from_chain, read_contents
from mtlsctl.pki.findings import judge
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.stores import to_pem
from tests.support.patience import ENDED_SECONDS

from .foreign import DAY, Made, make, make_ca
from .making import NOW, make_authority, make_leaf

if TYPE_CHECKING:
    from pathlib import Path

CA = make_ca("a CA")
INTERMEDIATE = make_ca("an intermediate", CA, path_length=0)
LEAF = make("leaf", INTERMEDIATE)


def found(*made: Made, authorities: tuple[Made, ...] = (), name: str | None = None, served: bool = False) -> list[str]:
    """Codes, with a `?` behind those of warnings."""
    contents = from_chain([one.der for one in made])
    if not served:
        contents = read_contents(b"".join(one.pem for one in made), Passwords())
    judged = judge(contents, now=NOW, authorities=[parse_certificate(one.der) for one in authorities], server_name=name)
    return [one.code + ("?" if one.severity is Severity.WARNING else "") for one in judged]


def test_a_good_chain_is_good_and_so_are_our_own() -> None:
    assert [] == found(LEAF, INTERMEDIATE, CA)
    assert [] == found(LEAF, INTERMEDIATE)
    assert [] == found(CA)
    authority = make_authority()
    ours = read_contents(to_pem([make_leaf(authority).der, authority.issuer.certificate]), Passwords())
    assert () == judge(ours, now=NOW)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-DAY, DAY, []),
        (-2 * DAY, -DAY, [codes.NOT_IN_FORCE]),
        (-DAY, timedelta(0), [codes.NOT_IN_FORCE]),
        (DAY, 2 * DAY, [codes.NOT_IN_FORCE]),
        (timedelta(0), DAY, []),
    ],
)
def test_what_has_ended_or_has_not_begun_is_found(start: timedelta, end: timedelta, expected: list[str]) -> None:
    assert expected == found(make("mail", start=start, end=end))


def test_a_leaf_without_names_is_found_and_one_with_an_address_alone_is_not() -> None:
    assert [codes.NO_NAMES] == found(make("mail", names=()))
    assert [] == found(make("mail", names=(), address="192.0.2.1"))


def test_a_name_that_is_none_is_found() -> None:
    assert [f"{codes.PROFILE}?"] == found(make("mail", names=("no name.example",)))
    assert [] == found(make("mail", names=("*.mail.example",)))


def test_keys_that_are_too_short_are_found() -> None:
    assert [codes.WEAK] == found(make("mail", key=rsa.generate_private_key(65537, 1024)))  # noqa: S505  that is the point
    assert [] == found(make("mail", key=rsa.generate_private_key(65537, 2048)))
    assert [codes.WEAK] == found(make("mail", key=ec.generate_private_key(ec.SECP192R1())))
    assert [] == found(make("mail", key=ec.generate_private_key(ec.SECP384R1())))


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_a_digest_that_can_be_forged_is_found_and_its_signature_holds_all_the_same(tmp_path: Path, digest: str) -> None:
    """The library neither signs with them nor calls such a signature good."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=ENDED_SECONDS)

    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", f"-{digest}", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=old")
    names = ("-addext", "subjectAltName=DNS:leaf.example", "-addext", "extendedKeyUsage=serverAuth")
    openssl("req", *new, f"-{digest}", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=leaf", *names)
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copy", "-out", "leaf.crt")
    openssl("x509", "-req", f"-{digest}", "-in", "leaf.csr", *signed)
    anchor, leaf, request = ((tmp_path / name).read_bytes() for name in ("ca.crt", "leaf.crt", "leaf.csr"))
    assert () == judge(read_contents(anchor, Passwords()), now=NOW + DAY)
    judged = judge(read_contents(leaf + anchor, Passwords()), now=NOW + DAY)
    assert [codes.WEAK] == [one.code for one in judged if one.severity is Severity.ERROR]
    assert [codes.WEAK] == [one.code for one in judge(read_contents(request, Passwords()), now=NOW)]


def test_uses_are_judged() -> None:
    assert [f"{codes.USE}?"] == found(make("mail", usages=()))
    assert [codes.USE] == found(make("mail", usages=(ExtendedKeyUsageOID.CODE_SIGNING,)))
    client = make("mail", usages=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    assert [] == found(client)
    assert [codes.USE] == found(client, served=True)


def test_a_chain_out_of_order_is_found() -> None:
    assert [codes.CHAIN_ORDER] == found(INTERMEDIATE, LEAF, CA)
    assert [codes.CHAIN_ORDER] == found(CA, INTERMEDIATE, LEAF)
    assert codes.CHAIN_ORDER in found(LEAF, CA, INTERMEDIATE)
    assert [codes.CHAIN_ORDER] == found(LEAF, make_ca("a stranger"))


def test_a_leaf_alone_leads_nowhere_unless_the_estate_knows_its_ca() -> None:
    assert [f"{codes.CHAIN_OPEN}?"] == found(LEAF)
    assert [] == found(LEAF, authorities=(INTERMEDIATE,))


def test_a_ca_of_the_right_name_and_another_key_did_not_sign() -> None:
    impostor = make_ca("a CA")
    assert [codes.NOT_SIGNED] == found(make("leaf", CA), impostor)


def test_names_outside_the_constraints_of_any_ca_above_are_found() -> None:
    inside = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName("leaf.example")],
        excluded_subtrees=[x509.IPAddress(ipaddress.ip_network("0.0.0.0/0"))],
    )
    narrow = make_ca("narrow", constraints=inside)
    assert [] == found(make("leaf", narrow), narrow)
    assert [codes.CONSTRAINED] == found(make("other", narrow), narrow)
    assert [codes.CONSTRAINED] == found(make("leaf", narrow, address="192.0.2.1"), narrow)
    assert [codes.CONSTRAINED] == found(make("other", narrow), authorities=(narrow,))
    middle = make_ca("middle", narrow)
    assert [codes.CONSTRAINED] == found(make("other", middle), middle, narrow)


def test_a_signer_that_is_no_ca_and_a_ca_below_path_length_0_are_found() -> None:
    assert codes.CONSTRAINED in found(make("below", LEAF), LEAF)
    deep = make_ca("deep", INTERMEDIATE)
    assert [codes.CONSTRAINED] == found(make("leaf", deep), deep, INTERMEDIATE)


def test_a_leaf_that_outlives_its_ca_is_a_warning() -> None:
    short = make_ca("short", end=DAY)
    assert [f"{codes.NOT_IN_FORCE}?"] == found(make("leaf", short, end=2 * DAY), short)


def test_the_name_that_is_asked_for_has_to_be_presented() -> None:
    chain = (LEAF, INTERMEDIATE)
    assert [] == found(*chain, name="leaf.example")
    assert [codes.NAME_MISSING] == found(*chain, name="other.example", served=True)
    assert [codes.NAME_MISSING] == found(*chain, name="192.0.2.1")
    assert [] == found(make("x", names=("*.example",)), name="a.example")
    assert [codes.NAME_MISSING] == found(make("x", names=("*.example",)), name="a.b.example")


def test_an_endless_chain_is_not_followed() -> None:
    chain = [make_ca("c0")]
    for number in range(1, 12):
        chain.append(make_ca(f"c{number}", chain[-1]))
    assert codes.CHAIN_ORDER in found(*reversed(chain), served=True)


def test_a_label_is_cut_where_it_is_long() -> None:
    long = make("x" * 64, names=())
    (one,) = judge(read_contents(long.pem + CA.pem, Passwords()), now=NOW)[:1]
    assert "..." in one.message
