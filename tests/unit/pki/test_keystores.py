"""Key stores and trust stores: what is put in is found in them, by our reader and by those of OpenSSL and Java."""

from __future__ import annotations

import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, load_pkcs12, serialize_key_and_certificates
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsctl.errors import PreflightError
from mtlsctl.model.keystore import StoreProfile
from mtlsctl.model.secret import Secret
from mtlsctl.pki.keys import spki_sha256
from mtlsctl.pki.keystores import (
    LONGEST_PASSWORD,
    ROUNDS,
    StoreContent,
    check_password,
    generate_password,
    make_key_store,
    make_trust_store,
    read_store,
)
from tests.support.patience import ENDED_SECONDS

from .making import authority_profile, certificate_profile, make_authority, make_leaf

if TYPE_CHECKING:
    from pathlib import Path

MAIL = make_authority(authority_profile("mail"))
NEXT = make_authority(authority_profile("mail", 2))
LEAF = make_leaf(MAIL)
ANCHORS = {"mail-ca-g1": MAIL.issuer.certificate, "mail-ca-g2": NEXT.issuer.certificate}
PASSWORD = Secret(b"a phrase \"with\" $igns \\ and 'more'")
OTHER = Secret(b"not that one")


def key_store(
    password: Secret = PASSWORD, *, profile: StoreProfile = StoreProfile.MODERN, alias: str = "mail"
) -> bytes:
    return make_key_store(LEAF.key, [LEAF.der], alias=alias, password=password, profile=profile)


def trust_store(password: Secret = PASSWORD, *, profile: StoreProfile = StoreProfile.MODERN) -> bytes:
    return make_trust_store(ANCHORS, password=password, profile=profile)


def keytool(tmp_path: Path, store: bytes, password: Secret) -> str:
    file, secret = tmp_path / "store", tmp_path / "password"
    file.write_bytes(store)
    secret.write_bytes(password.reveal())
    command = ["keytool", "-J-Duser.language=en", "-list", "-keystore", str(file), "-storepass:file", str(secret)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS).stdout


@pytest.mark.parametrize("profile", StoreProfile)
def test_a_store_holds_what_was_put_in_and_nothing_else(profile: StoreProfile) -> None:
    key = StoreContent(alias="mail", key_spki_sha256=spki_sha256(LEAF.key.public_key()), chain=(LEAF.der,), anchors=())
    assert key == read_store(key_store(profile=profile), PASSWORD)
    trust = StoreContent(alias=None, key_spki_sha256=None, chain=(), anchors=tuple(sorted(ANCHORS.items())))
    assert trust == read_store(trust_store(profile=profile), PASSWORD)


def test_a_chain_with_an_intermediate_keeps_its_order() -> None:
    made = make_key_store(
        LEAF.key,
        [LEAF.der, MAIL.issuer.certificate],
        alias="mail",
        password=PASSWORD,
        profile=StoreProfile.MODERN,
    )
    assert (LEAF.der, MAIL.issuer.certificate) == read_store(made, PASSWORD).chain


@pytest.mark.parametrize("profile", StoreProfile)
def test_the_algorithms_are_those_of_the_profile(profile: StoreProfile, tmp_path: Path) -> None:
    for store in (key_store(profile=profile), trust_store(profile=profile)):
        file = tmp_path / "store"
        file.write_bytes(store)
        secret = tmp_path / "password"
        secret.write_bytes(PASSWORD.reveal() + b"\n")
        said = subprocess.run(
            ["openssl", "pkcs12", "-info", "-nodes", "-noout", "-in", file, "-passin", f"file:{secret}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDED_SECONDS,
        ).stderr
        mac, algorithm = ("sha256", "AES-256-CBC") if profile is StoreProfile.MODERN else ("sha1", "3-KeyTripleDES-CBC")
        assert f"MAC: {mac}" in said
        assert algorithm in said
        assert "Iteration 10000" in said


@pytest.mark.peer("keytool")
@pytest.mark.parametrize("profile", StoreProfile)
def test_java_finds_the_key_under_its_alias_and_each_anchor_under_its_own(
    profile: StoreProfile, tmp_path: Path
) -> None:
    held = keytool(tmp_path, key_store(profile=profile), PASSWORD)
    assert "contains 1 entry" in held
    assert "\nmail, " in held
    assert "PrivateKeyEntry" in held
    believed = keytool(tmp_path, trust_store(profile=profile), PASSWORD)
    assert 2 == believed.count("trustedCertEntry")
    assert all(f"\n{alias}, " in believed for alias in ANCHORS)
    assert "trustedCertEntry" not in keytool(tmp_path, trust_store(profile=profile), Secret(b"another one"))


def test_the_wrong_password_opens_nothing_and_is_not_quoted() -> None:
    with pytest.raises(PreflightError) as refused:
        read_store(key_store(), OTHER)
    assert "M7108" == refused.value.code
    assert "not that one" not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("data", [b"", b"x", b"\xfe\xed\xfe\xed\0\0\0\2", key_store()[:-1], LEAF.der])
def test_what_is_no_store_is_refused(data: bytes) -> None:
    with pytest.raises(PreflightError) as refused:
        read_store(data, PASSWORD)
    assert "M7108" == refused.value.code


def test_a_store_whose_bytes_were_altered_is_refused() -> None:
    store = bytearray(trust_store())
    store[len(store) // 2] ^= 1
    with pytest.raises(PreflightError):
        read_store(bytes(store), PASSWORD)


def test_two_stores_of_the_same_content_differ_in_bytes_only() -> None:
    first, second = key_store(), key_store()
    assert first != second
    assert read_store(first, PASSWORD) == read_store(second, PASSWORD)


def test_a_trust_store_without_anchors_is_not_written() -> None:
    with pytest.raises(PreflightError) as refused:
        make_trust_store({}, password=PASSWORD, profile=StoreProfile.MODERN)
    assert "M7108" == refused.value.code


@pytest.mark.parametrize("alias", ["", "Mail", "mäil", "a b", "-a", "a-", "a/b", "a\n", "x" * 65])
def test_an_alias_that_readers_take_differently_is_refused(alias: str) -> None:
    with pytest.raises(PreflightError) as refused:
        key_store(alias=alias)
    assert "M7108" == refused.value.code
    assert key_store(alias="a.b_c-9")


BAD = [b"", b"short", b"pass\xc3\xa4word", b"with\nnewline", b"with\0nul", b"tab\there", b" before", b"after "]


@pytest.mark.parametrize("password", [*BAD, b"x" * (LONGEST_PASSWORD + 1)])
def test_a_password_that_programs_read_differently_is_refused_and_not_quoted(password: bytes) -> None:
    for make in (key_store, trust_store, check_password):
        with pytest.raises(PreflightError) as refused:
            make(Secret(password))
        assert "M7107" == refused.value.code
        assert len(password) < 5 or repr(password)[2:-1] not in str(refused.value)


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=6, max_size=80))
def test_every_printable_password_opens_what_it_closed(text: str) -> None:
    password = Secret(text.encode())
    if text.strip() != text:
        with pytest.raises(PreflightError):
            check_password(password)
        return
    assert "mail" == read_store(key_store(password), password).alias


def test_a_generated_password_is_one_word_of_32_letters_and_digits_and_never_the_same() -> None:
    made = {generate_password().reveal() for _ in range(50)}
    assert 50 == len(made)
    assert all(32 == len(one) and one.isalnum() and one.isascii() for one in made)
    assert all(check_password(Secret(one)) for one in made)


def test_the_key_is_that_of_the_certificate_beside_it() -> None:
    opened = load_pkcs12(key_store(), PASSWORD.reveal())
    assert opened.cert is not None
    assert opened.key is not None
    assert x509.load_der_x509_certificate(LEAF.der) == opened.cert.certificate
    assert opened.key.public_key() == LEAF.key.public_key()


def test_a_key_that_is_not_the_certificates_makes_no_store() -> None:
    other = make_leaf(MAIL, certificate_profile())
    with pytest.raises(PreflightError, match="another certificate"):
        make_key_store(other.key, [LEAF.der], alias="mail", password=PASSWORD, profile=StoreProfile.MODERN)


def test_a_store_that_asks_for_more_rounds_than_ours_is_not_opened() -> None:
    """Whoever may write on a host knows the password that lies there, and could have an apply derive for hours."""
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(2 * ROUNDS)
    slow = builder.key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    made = serialize_key_and_certificates(
        b"mail", LEAF.key, x509.load_der_x509_certificate(LEAF.der), None, slow.build(PASSWORD.reveal())
    )
    assert load_pkcs12(made, PASSWORD.reveal()).key is not None
    with pytest.raises(PreflightError):
        read_store(made, PASSWORD)
