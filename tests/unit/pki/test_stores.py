from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsctl.errors import PreflightError
from mtlsctl.pki.stores import parse_bundle, to_pem

from .making import make_authority

ONE = make_authority().issuer.certificate
TWO = make_authority().issuer.certificate


def test_each_block_ends_with_a_newline_and_has_lines_of_sixty_four() -> None:
    pem = to_pem([ONE, TWO])
    assert (ssl.DER_cert_to_PEM_cert(ONE) + ssl.DER_cert_to_PEM_cert(TWO)).encode() == pem
    assert pem.endswith(b"-----END CERTIFICATE-----\n")
    assert b"-----END CERTIFICATE----------BEGIN" not in pem


@given(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=5))
def test_what_was_written_is_read_back_in_its_order(ders: list[bytes]) -> None:
    assert tuple(ders) == parse_bundle(to_pem(ders))


BROKEN = {
    "empty": b"",
    "blank": b"\n",
    "text before": b"# trust\n" + to_pem([ONE]),
    "text between": to_pem([ONE]) + b"# the other\n" + to_pem([TWO]),
    "blank line between": to_pem([ONE]) + b"\n" + to_pem([TWO]),
    "no newline at the end": to_pem([ONE])[:-1],
    "no newline between": to_pem([ONE])[:-1] + to_pem([TWO]),
    "cut short": to_pem([ONE, TWO])[:-100],
    "carriage returns": to_pem([ONE]).replace(b"\n", b"\r\n"),
    "a key": to_pem([ONE]).replace(b"CERTIFICATE", b"PRIVATE KEY"),
    "a trusted certificate": to_pem([ONE]).replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
    "not base64": b"-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_some_stack_would_read_otherwise_is_refused(kind: str) -> None:
    with pytest.raises(PreflightError) as refused:
        parse_bundle(BROKEN[kind])
    assert "M7106" == refused.value.code


def test_a_refusal_names_the_line_of_the_block() -> None:
    pem = to_pem([ONE]) + b"# the other\n"
    with pytest.raises(PreflightError, match=f"begins at line {pem.count(10)}"):
        parse_bundle(pem)


def test_a_large_bundle_is_read_in_one_pass() -> None:
    assert 2000 == len(parse_bundle(to_pem([ONE] * 2000)))
