"""Files of every form, made by the programs that people make them with."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, pkcs12
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlsctl.errors import InspectionError, PreflightError
from mtlsctl.model.keystore import StoreProfile
from mtlsctl.model.secret import Secret
from mtlsctl.pki import codes
from mtlsctl.pki.asn1 import read_one
from mtlsctl.pki.contents import FILE_LIMIT, Form, Opened, Passwords, read_contents
from mtlsctl.pki.findings import judge
from mtlsctl.pki.keystores import generate_password, make_key_store, make_trust_store
from mtlsctl.pki.pkcs12 import _der
from tests.conftest import find_peer
from tests.support.patience import ENDED_SECONDS

from .foreign import DAY, Made, make, make_ca, name_of
from .making import NOW, make_authority, make_leaf

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.serialization import KeySerializationEncryption

    from mtlsctl.pki.contents import Contents

CA = make_ca("a CA")
LEAF = make("leaf", CA)
NOTHING = Passwords()


def read(data: bytes, password: str | None = None) -> Contents:
    return read_contents(data, NOTHING if password is None else Passwords(given=Secret(password.encode())))


def refused(data: bytes, password: str | None = None) -> InspectionError:
    with pytest.raises(InspectionError) as raised:
        read(data, password)
    return raised.value


def found(contents: Contents) -> set[str]:
    return {one.code for one in judge(contents, now=NOW)}


def subjects(contents: Contents) -> list[str]:
    return [" ".join(one.parsed.common_names) for one in contents.certificates]


# --- PEM and DER ----------------------------------------------------------------------------------------------------


def test_a_chain_in_pem_is_a_chain_and_a_bundle_of_cas_is_none() -> None:
    chain = read(LEAF.pem + CA.pem)
    assert (Form.PEM, ["leaf", "a CA"], (0, 1), ()) == (chain.form, subjects(chain), chain.chain, chain.anchors)
    bundle = read(CA.pem + make_ca("another").pem)
    assert (["a CA", "another"], (), (0, 1)) == (subjects(bundle), bundle.chain, bundle.anchors)


def test_a_pinned_leaf_stands_for_itself() -> None:
    pinned = read(make("mail").pem + make("social").pem)
    assert ((), (0, 1)) == (pinned.chain, pinned.anchors)


def test_a_certificate_in_der_is_one() -> None:
    assert (Form.DER, ["leaf"]) == (read(LEAF.der).form, subjects(read(LEAF.der)))


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_request_is_read_with_its_proof(encoding: Encoding) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name_of("mail"))
    names = x509.SubjectAlternativeName([x509.DNSName("mail.example")])
    request = builder.add_extension(names, critical=False).sign(LEAF.key, hashes.SHA256())
    (one,) = read(request.public_bytes(encoding)).requests
    assert ("CN=mail", ("mail.example",), "ecdsa-p256", True) == (one.subject, one.names, one.algorithm, one.is_proven)
    assert one.spki_sha256 == read(LEAF.pem).certificates[0].parsed.spki_sha256


def test_a_request_whose_key_did_not_sign_it_is_told_apart() -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(name_of("mail")).sign(LEAF.key, hashes.SHA256())
    der = request.public_bytes(Encoding.DER)
    forged = read(der[:-3] + bytes([der[-3] ^ 1]) + der[-2:])
    assert [False] == [one.is_proven for one in forged.requests]
    assert {codes.POSSESSION} == found(forged)


def revocation_list(*, by: Made = CA, named: Made = CA, next_update: int = 7, number: bool = True) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(named.certificate.subject)
    builder = builder.last_update(NOW - 30 * DAY).next_update(NOW + next_update * DAY)
    if number:
        builder = builder.add_extension(x509.CRLNumber(7), critical=False)
    entry = x509.RevokedCertificateBuilder().serial_number(5).revocation_date(NOW - DAY).build()
    return builder.add_revoked_certificate(entry).sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_revocation_list_is_read_and_its_age_judged() -> None:
    (one,) = read(revocation_list()).lists
    assert ("CN=a CA", 7, 1) == (one.issuer, one.number, one.revoked)
    assert set() == found(read(revocation_list()))
    assert {codes.REVOCATION_LIST} == found(read(revocation_list(next_update=-1)))
    assert {codes.REVOCATION_LIST} == found(read(revocation_list(number=False)))


def test_a_revocation_list_of_another_key_is_found_where_the_ca_is_beside_it() -> None:
    assert set() == found(read(CA.pem + revocation_list()))
    assert {codes.REVOCATION_LIST} == found(read(CA.pem + revocation_list(by=make_ca("other"))))


def test_a_private_key_is_named_and_never_shown() -> None:
    contents = read(LEAF.key_pem)
    (key,) = contents.keys
    assert ("ecdsa-p256", None) == (key.algorithm, key.encrypted)
    assert key.spki_sha256 == read(LEAF.pem).certificates[0].parsed.spki_sha256
    numbers = LEAF.key.private_numbers()
    assert isinstance(numbers, ec.EllipticCurvePrivateNumbers)
    secret = numbers.private_value
    raw = secret.to_bytes(32)
    shown = repr(contents)
    assert all(text not in shown for text in (str(secret), raw.hex(), base64.b64encode(raw).decode(), "PRIVATE KEY"))


def test_a_key_beside_its_certificate_fits_and_another_does_not() -> None:
    assert found(read(LEAF.pem + CA.pem + LEAF.key_pem)) == set()
    assert {codes.KEY_BESIDE} == found(read(LEAF.pem + CA.pem + make("x").key_pem))


def test_an_encrypted_key_is_opened_with_the_password_that_is_given() -> None:
    sealed = LEAF.sealed_key_pem(b"open sesame")
    (unopened,) = read(sealed).keys
    assert (None, None) == (unopened.algorithm, unopened.spki_sha256)
    (opened,) = read(sealed, "open sesame").keys
    assert opened.algorithm == "ecdsa-p256"
    assert opened.encrypted is not None
    assert codes.NOT_OPENED == refused(sealed, "wrong").code


def test_a_public_key_is_named() -> None:
    pem = LEAF.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (one,) = read(pem).public_keys
    assert one.spki_sha256 == read(LEAF.pem).certificates[0].parsed.spki_sha256


def test_a_broken_block_does_not_hide_the_others() -> None:
    broken = b"-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n"
    contents = read(broken + CA.pem)
    assert ["a CA"] == subjects(contents)
    assert {codes.PART_UNREADABLE} == found(contents)


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n",
    ],
)
def test_a_file_of_broken_blocks_alone_is_not_recognised(text: bytes) -> None:
    assert codes.NOT_RECOGNISED == refused(text).code


def test_text_between_blocks_and_a_missing_newline_are_said() -> None:
    contents = read(b"Bag Attributes\n" + CA.pem.rstrip(b"\n"))
    assert ["a CA"] == subjects(contents)
    assert [codes.FORM, codes.FORM] == [one.code for one in judge(contents, now=NOW)]
    assert () == judge(read(CA.pem.replace(b"\n", b"\r\n")), now=NOW)


def test_an_empty_file_one_that_is_too_large_and_utf16_are_refused_by_name() -> None:
    assert (codes.NOT_RECOGNISED, "the file is empty") == (refused(b" \n").code, refused(b"").message)
    assert codes.TOO_MUCH == refused(b"0" * (FILE_LIMIT + 1)).code
    assert "UTF-16" in refused("-----BEGIN CERTIFICATE-----".encode("utf-16")).message
    assert "JCEKS" in refused(b"\xce\xce\xce\xce\0\0\0\2").message


# --- PKCS#12 and JKS, by the library and by the programs ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"ca.crt": CA.pem, "leaf.crt": LEAF.pem, "leaf.key": LEAF.key_pem}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def run(folder: Path, program: str, *arguments: str) -> None:
    path = find_peer(program)
    assert path is not None
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [path, *arguments], cwd=folder, env=environment, check=True, capture_output=True, timeout=ENDED_SECONDS
    )


def by_openssl(folder: Path, *more: str) -> bytes:
    run(folder, "openssl", "pkcs12", "-export", "-out", "made", "-passout", "pass:open sesame", *more)
    return (folder / "made").read_bytes()


def by_keytool(folder: Path, kind: str, *aliases: str) -> bytes:
    for alias in aliases:
        run(
            folder, "keytool", "-importcert", "-noprompt", "-keystore", "made", "-storetype", kind,
            "-storepass", "changeit", "-alias", alias, "-file", "ca.crt",
        )  # fmt: skip
    return (folder / "made").read_bytes()


KEY_STORE = ("-inkey", "leaf.key", "-in", "leaf.crt", "-certfile", "ca.crt", "-name", "Mail")


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("profile", [(), ("-legacy",), ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES")])
def test_a_key_store_of_openssl_is_opened_whatever_encrypts_it(folder: Path, profile: tuple[str, ...]) -> None:
    contents = read(by_openssl(folder, *KEY_STORE, *profile), "open sesame")
    (key,) = contents.keys
    assert (Form.PKCS12, Opened.GIVEN, 1) == (contents.form, contents.opened, contents.java_entries)
    assert ("Mail", "ecdsa-p256", (0, 1)) == (key.alias, key.algorithm, key.chain)
    assert key.spki_sha256 == contents.certificates[0].parsed.spki_sha256
    assert ({codes.FORM} if profile == ("-legacy",) else set()) == found(contents)


@pytest.mark.peer("openssl")
def test_a_key_store_does_not_open_without_its_password(folder: Path) -> None:
    data = by_openssl(folder, *KEY_STORE)
    assert (codes.NOT_OPENED, codes.NOT_OPENED) == (refused(data).code, refused(data, "Open sesame").code)
    assert "sesame" not in str(refused(data, "Open sesame"))


@pytest.mark.peer("openssl")
def test_a_trust_store_of_openssl_is_empty_to_java(folder: Path) -> None:
    contents = read(by_openssl(folder, "-nokeys", "-in", "ca.crt"), "open sesame")
    assert (["a CA"], 0) == (subjects(contents), contents.java_entries)
    assert {codes.JAVA_SEES_NOTHING} == found(contents)


@pytest.mark.peer("openssl")
@pytest.mark.peer("keytool")
def test_java_sees_as_many_entries_as_we_say(folder: Path) -> None:
    for data in (by_openssl(folder, "-nokeys", "-in", "ca.crt"), by_openssl(folder, *KEY_STORE)):
        (folder / "counted").write_bytes(data)
        listed = subprocess.run(
            [str(find_peer("keytool")), "-list", "-keystore", "counted", "-storepass", "open sesame"],
            cwd=folder, capture_output=True, text=True, check=True, timeout=ENDED_SECONDS,
        ).stdout  # fmt: skip
        count = read(data, "open sesame").java_entries
        assert f"contains {count} entr" in listed


@pytest.mark.peer("keytool")
@pytest.mark.parametrize("kind", ["PKCS12", "JKS"])
def test_a_trust_store_of_keytool_opens_with_the_well_known_password_and_that_is_said(folder: Path, kind: str) -> None:
    contents = read(by_keytool(folder, kind, "one", "two"))
    assert (Opened.WELL_KNOWN, 2) == (contents.opened, contents.java_entries)
    assert {"one", "two"} == {one.alias for one in contents.certificates}
    assert set() == found(contents)


@pytest.mark.peer("keytool")
@pytest.mark.peer("openssl")
def test_a_key_in_a_jks_store_is_counted_with_its_chain_and_left_alone(folder: Path) -> None:
    (folder / "made.p12").write_bytes(by_openssl(folder, *KEY_STORE))
    run(
        folder, "keytool", "-importkeystore", "-srckeystore", "made.p12", "-srcstorepass", "open sesame",
        "-destkeystore", "made.jks", "-deststoretype", "JKS", "-deststorepass", "hidden12", "-destkeypass", "hidden12",
    )  # fmt: skip
    data = (folder / "made.jks").read_bytes()
    contents = read(data)
    (key,) = contents.keys
    assert (Form.JKS, Opened.NOT_OPENED, "mail", (0, 1)) == (contents.form, contents.opened, key.alias, key.chain)
    assert {codes.UNSEALED} == found(contents)
    assert (Opened.GIVEN, set()) == (read(data, "hidden12").opened, found(read(data, "hidden12")))
    assert codes.NOT_OPENED == refused(data, "wrong").code


@pytest.mark.peer("keytool")
def test_a_jks_store_that_somebody_changed_does_not_pass_for_whole(folder: Path) -> None:
    data = bytearray(by_keytool(folder, "JKS", "one"))
    at = data.index(b"one")
    data[at : at + 3] = b"two"
    assert Opened.NOT_OPENED is read(bytes(data)).opened


@pytest.mark.peer("keytool")
def test_a_jceks_store_is_refused_by_name(folder: Path) -> None:
    error = refused(by_keytool(folder, "JCEKS", "one"))
    assert (codes.NOT_READ, "keytool -importkeystore" in (error.help or "")) == (error.code, True)


def java_trust_store(*aliases: str, password: bytes = b"changeit") -> bytes:
    entries = [pkcs12.PKCS12Certificate(CA.certificate, alias.encode()) for alias in aliases]
    sealing = pkcs12_sealing(password)
    return pkcs12.serialize_java_truststore(entries, sealing)


def pkcs12_sealing(password: bytes, rounds: int = 2048) -> KeySerializationEncryption:
    return PrivateFormat.PKCS12.encryption_builder().kdf_rounds(rounds).build(password)


@pytest.mark.parametrize("profile", StoreProfile)
def test_our_own_stores_are_opened_and_nothing_is_wrong_with_them(profile: StoreProfile) -> None:
    password = generate_password()
    authority = make_authority()
    leaf = make_leaf(authority)
    chain = (leaf.der, authority.issuer.certificate)
    keys = make_key_store(leaf.key, chain, alias="mail", password=password, profile=profile)
    trust = make_trust_store({"a": chain[1], "b": CA.der}, password=password, profile=profile)
    for data, expected in ((keys, 1), (trust, 2)):
        contents = read_contents(data, Passwords(given=password))
        assert (expected, set()) == (contents.java_entries, found(contents))
        assert codes.NOT_OPENED == refused(data).code


def test_entries_with_one_alias_are_found_whatever_their_case() -> None:
    assert set() == found(read(java_trust_store("one", "two")))
    assert {codes.ALIAS} == found(read(java_trust_store("one", "ONE")))


def key_store(key: Made, *chain: Made, password: bytes = b"open sesame", rounds: int = 2048) -> bytes:
    first, *rest = (one.certificate for one in chain)
    return pkcs12.serialize_key_and_certificates(
        b"mail",
        key.key,
        first,
        rest,
        pkcs12_sealing(password, rounds),
    )


def test_a_key_store_with_the_well_known_password_is_a_warning_and_a_trust_store_none() -> None:
    assert {codes.OPENS_FOR_ALL} == found(read(key_store(LEAF, LEAF, CA, password=b"changeit")))
    assert set() == found(read(java_trust_store("one")))


def test_a_certificate_of_another_key_in_a_key_store_is_found() -> None:
    """Joined by its local key identifier, as Java joins the two."""
    assert codes.KEY_BESIDE in found(read(wrongly_paired(), "open sesame"))


def wrongly_paired() -> bytes:
    """The library does not write such a file, so the certificate is exchanged in one that is not encrypted."""
    other = make("leaf", CA)
    while len(other.der) != len(LEAF.der):
        other = make("leaf", CA)
    data = pkcs12.serialize_key_and_certificates(
        b"mail",
        LEAF.key,
        LEAF.certificate,
        None,
        NoEncryption(),
    )
    assert LEAF.der in data
    return _without_mac(data.replace(LEAF.der, other.der))


def _without_mac(data: bytes) -> bytes:
    node = read_one(data)
    kept = b"".join(map(_der, node.children()[:2]))
    return _der(node._replace(content=kept))


@pytest.mark.parametrize("rounds", [0, 2_000_001, 2**23 - 1, 2**23, 2**24 - 1])
def test_a_file_that_asks_for_endless_work_is_refused_at_once(rounds: int) -> None:
    data = _without_mac(key_store(LEAF, LEAF, rounds=60_000))
    altered = data.replace(b"\x02\x03\x00\xea\x60", b"\x02\x03" + rounds.to_bytes(3))
    assert altered != data
    started = time.perf_counter()
    assert codes.TOO_MUCH == refused(altered, "open sesame").code
    assert time.perf_counter() - started < 5
    assert ["leaf"] == subjects(read(data, "open sesame"))


def test_a_weak_key_is_found_in_every_place() -> None:
    weak = make("leaf", CA, key=rsa.generate_private_key(65537, 1024))  # noqa: S505  that is the point
    assert codes.WEAK in found(read(weak.pem))
    assert codes.WEAK in found(read(weak.key_pem))
    request = x509.CertificateSigningRequestBuilder().subject_name(name_of("x")).sign(weak.key, hashes.SHA256())
    assert {codes.WEAK} == found(read(request.public_bytes(Encoding.PEM)))


# --- garbage --------------------------------------------------------------------------------------------------------


def samples() -> tuple[bytes, ...]:
    request = x509.CertificateSigningRequestBuilder().subject_name(name_of("x")).sign(LEAF.key, hashes.SHA256())
    return (
        LEAF.der,
        LEAF.pem + CA.pem + LEAF.key_pem,
        LEAF.sealed_key_pem(b"changeit"),
        request.public_bytes(Encoding.DER),
        revocation_list(),
        key_store(LEAF, LEAF, CA, password=b"changeit"),
        java_trust_store("one", "two"),
        JKS,
    )


def _jks() -> bytes:
    def text(value: bytes) -> bytes:
        return len(value).to_bytes(2) + value

    def number(value: int) -> bytes:
        return value.to_bytes(4)

    certificates = [text(b"X.509") + number(len(one.der)) + one.der for one in (LEAF, CA)]
    body = b"\xfe\xed\xfe\xed" + number(2) + number(2)
    body += number(1) + text(b"mail") + bytes(8) + number(5) + b"\x30\x03abc" + number(2) + b"".join(certificates)
    body += number(2) + text(b"ca") + bytes(8) + certificates[1]
    return body + hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324


JKS = _jks()
SAMPLES = samples()
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_jks_store_by_the_book_is_read_without_java() -> None:
    contents = read(JKS)
    assert (Opened.WELL_KNOWN, 2, ["leaf", "a CA", "a CA"]) == (
        contents.opened,
        contents.java_entries,
        subjects(contents),
    )


def survives(data: bytes) -> None:
    """Whatever it is: contents that can be judged, or an InspectionError."""
    try:
        contents = read(data)
    except InspectionError:
        return
    judge(contents, now=NOW, server_name="leaf.example")


@QUICK
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4), st.data())
def test_files_with_altered_bytes_are_refused_or_read_and_never_a_crash(
    sample: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    altered = bytearray(sample)
    for at, value in changes:
        altered[at % len(altered)] = value
    start = data.draw(st.integers(0, len(altered)))
    end = data.draw(st.integers(start, len(altered)))
    kind = data.draw(st.sampled_from(["whole", "cut", "hole", "twice"]))
    match kind:
        case "cut":
            altered = altered[:end]
        case "hole":
            altered = altered[:start] + altered[end:]
        case "twice":
            altered = altered[:end] + altered[start:]
        case _:
            pass
    survives(bytes(altered))


@QUICK
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"0\x82", b"\xfe\xed\xfe\xed\0\0\0\2", b"-----BEGIN CERTIFICATE-----\n"]),
)
def test_arbitrary_bytes_are_refused_or_read(content: bytes, start: bytes) -> None:
    survives(start + content)


def test_nothing_of_an_altered_file_is_quoted() -> None:
    with pytest.raises((InspectionError, PreflightError)) as raised:
        read(b"\x30\x05secret words")
    assert "secret" not in f"{raised.value}{raised.value.notes}{raised.value.help}"


def test_lengths_without_an_end_that_hold_each_other_cost_no_time() -> None:
    """BER has to be looked through on every level to find where one ends."""
    pieces = b"\x24\x80" + b"\x04\0" * 24_000 + b"\0\0"
    octets = b"\x24\x80" * 20 + pieces * 20 + b"\0\0" * 20
    data = bytes.fromhex("308002010330800609" + "2a864886f70d010701" + "a080") + octets + b"\0" * 6
    began = time.monotonic()
    with pytest.raises(InspectionError):
        read_contents(data, Passwords())
    assert time.monotonic() - began < 5
