"""Issuance where a host signs: what one of them says is no reason to fail the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import AuthorityId
from mtlsctl.operations.issue import _signed
from mtlsctl.pki.issue import draft_certificate, lint
from mtlsctl.pki.keys import generate_key
from tests.unit.pki.making import NOW, P256, certificate_profile, make_authority

if TYPE_CHECKING:
    from mtlsctl.deliver.transport import Transport


class Liar:
    """A host that keeps its keys, and signs with none of them."""

    keeper = property(lambda self: self)

    def sign_with_key(self, service: str, spki_sha256: str, to_be_signed: bytes) -> bytes:
        return b"no signature"


def test_a_host_that_does_not_sign_what_it_was_given_fails_alone() -> None:
    profile = replace(certificate_profile(), authority=AuthorityId("mail", 0))
    draft = draft_certificate(profile, generate_key(P256).public_key(), None, now=NOW)
    signed, failed = _signed([lint(draft)], {}, {"web1": cast("Transport", Liar())})
    assert [] == signed
    assert ["M7103"] == [failed[profile.id.instance].code]


def test_a_ca_whose_key_does_not_sign_what_was_meant_fails_all() -> None:
    authority = make_authority()
    draft = draft_certificate(certificate_profile(), generate_key(P256).public_key(), authority.issuer, now=NOW)
    with pytest.raises(PreflightError):
        _signed([lint(draft)], {draft.profile.authority: generate_key(P256)}, {})
