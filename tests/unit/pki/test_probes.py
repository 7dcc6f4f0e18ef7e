from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import AuthorityId, KeyUsage
from mtlsctl.model.probe import Presented
from mtlsctl.pki.inspect import facts_of, parse_certificate
from mtlsctl.pki.issue import LintError, draft_certificate
from mtlsctl.pki.keys import generate_key, load_private, spki_sha256
from mtlsctl.pki.probes import (
    PROBE_LIFETIME,
    LintedProbe,
    ProbeDraft,
    craft_foreign,
    draft_probe,
    lint_probe,
    sign_probe,
)
from mtlsctl.pki.stores import parse_bundle

from .making import DAY, NOW, P256, authority_profile, certificate_profile, make_authority, make_leaf

CALLER = certificate_profile(usages=frozenset({KeyUsage.CLIENT_AUTH}))
KEY = generate_key(P256)


def test_an_expired_probe_ended_an_hour_ago_and_is_fit_in_all_else() -> None:
    authority = make_authority()
    draft = draft_probe(Presented.EXPIRED, CALLER, KEY.public_key(), authority.issuer, now=NOW)
    facts = facts_of(parse_certificate(sign_probe(lint_probe(draft), authority.key)))
    assert NOW - timedelta(hours=1) == facts.not_after
    assert PROBE_LIFETIME == facts.not_after - facts.not_before
    assert ("mail", CALLER.names, ("clientAuth",)) == (facts.subject, facts.names, facts.usages)


def test_a_probe_of_the_wrong_usage_is_for_servers_only_and_valid_for_ten_minutes() -> None:
    authority = make_authority()
    draft = draft_probe(Presented.WRONG_USAGE, CALLER, KEY.public_key(), authority.issuer, now=NOW)
    facts = facts_of(parse_certificate(sign_probe(lint_probe(draft), authority.key)))
    assert ("serverAuth",) == facts.usages
    assert facts.not_before <= NOW < facts.not_after
    assert PROBE_LIFETIME == facts.not_after - facts.not_before


def test_a_probe_tells_an_intent_what_it_is() -> None:
    draft = draft_probe(Presented.EXPIRED, CALLER, KEY.public_key(), make_authority().issuer, now=NOW)
    assert AuthorityId("mail", 1) == draft.issuer_id
    assert "probe expired: mail@web1" == draft.subject_id
    assert ("mail", NOW - timedelta(hours=1)) == (draft.common_name, draft.not_after)
    assert int(draft.serial, 16) > 0


@pytest.mark.parametrize("kind", [Presented.NO_CERTIFICATE, Presented.FOREIGN_CA, Presented.PLAINTEXT])
def test_a_kind_that_needs_no_ca_is_not_drafted(kind: Presented) -> None:
    with pytest.raises(ValueError, match="no CA signs a probe"):
        draft_probe(kind, CALLER, KEY.public_key(), make_authority().issuer, now=NOW)


def test_a_ca_that_ended_signs_no_probe() -> None:
    ended = make_authority(authority_profile(lifetime=DAY), now=NOW - 2 * DAY)
    with pytest.raises(PreflightError, match="cannot sign"):
        draft_probe(Presented.EXPIRED, CALLER, KEY.public_key(), ended.issuer, now=NOW)


def test_a_fit_certificate_does_not_pass_as_a_probe() -> None:
    authority = make_authority()
    fit = draft_certificate(CALLER, KEY.public_key(), authority.issuer, now=NOW)
    for kind in Presented:
        disguised = ProbeDraft(unsigned=fit.unsigned, kind=kind, profile=CALLER)
        with pytest.raises(LintError) as refused:
            lint_probe(disguised)
        assert "a probe lives for ten minutes at most" in refused.value.findings


@pytest.mark.parametrize("other", [Presented.WRONG_USAGE, Presented.DELIVERED, Presented.FOREIGN_CA])
def test_a_probe_of_one_kind_does_not_pass_as_the_other(other: Presented) -> None:
    draft = draft_probe(Presented.EXPIRED, CALLER, KEY.public_key(), make_authority().issuer, now=NOW)
    with pytest.raises(LintError, match="not what a probe for"):
        lint_probe(replace(draft, kind=other))


def test_a_stand_in_says_what_the_callers_certificate_says_and_ends_within_ten_minutes() -> None:
    authority = make_authority()
    draft = draft_probe(Presented.DELIVERED, CALLER, KEY.public_key(), authority.issuer, now=NOW)
    leaf = parse_certificate(sign_probe(lint_probe(draft), authority.key))
    own = parse_certificate(make_leaf(authority, CALLER).der)
    assert (own.subject, own.issuer, own.names) == (leaf.subject, leaf.issuer, leaf.names)
    assert {ExtendedKeyUsageOID.CLIENT_AUTH} == leaf.usage_oids
    assert leaf.not_before <= NOW < leaf.not_after <= leaf.not_before + PROBE_LIFETIME
    assert draft.subject_id == f"probe delivered: {CALLER.id.instance}"


def test_only_lint_probe_makes_what_sign_probe_takes() -> None:
    draft = draft_probe(Presented.EXPIRED, CALLER, KEY.public_key(), make_authority().issuer, now=NOW)
    with pytest.raises(TypeError, match="only lint_probe"):
        LintedProbe(draft, token=object())
    with pytest.raises(AttributeError, match="does not change"):
        lint_probe(draft).draft = draft


def test_a_foreign_certificate_differs_in_its_key_and_signature_alone() -> None:
    authority = make_authority()
    real = make_leaf(authority, CALLER)
    crafted = craft_foreign(real.der, now=NOW)
    imitated, false_ca = (parse_certificate(der) for der in parse_bundle(crafted.chain))
    model, ca = parse_certificate(real.der), parse_certificate(authority.issuer.certificate)
    assert (model.subject, model.issuer, model.names) == (imitated.subject, imitated.issuer, imitated.names)
    assert model.certificate.serial_number == imitated.certificate.serial_number
    assert model.authority_key_identifier == imitated.authority_key_identifier
    assert (ca.subject, ca.subject_key_identifier) == (false_ca.subject, false_ca.subject_key_identifier)
    imitated.certificate.verify_directly_issued_by(false_ca.certificate)
    with pytest.raises(InvalidSignature):
        imitated.certificate.verify_directly_issued_by(ca.certificate)


def test_a_foreign_certificate_is_valid_now_for_ten_minutes_in_both_roles() -> None:
    crafted = craft_foreign(make_leaf(make_authority(), CALLER).der, now=NOW)
    leaf = parse_certificate(parse_bundle(crafted.chain)[0])
    start, end = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
    assert start <= NOW < end
    assert PROBE_LIFETIME == end - start
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == leaf.usage_oids


def test_a_foreign_key_belongs_to_its_certificate_and_does_not_show_itself() -> None:
    crafted = craft_foreign(make_leaf(make_authority(), CALLER).der, now=NOW)
    leaf = x509.load_der_x509_certificate(parse_bundle(crafted.chain)[0])
    public = load_private(crafted.key).public_key()
    assert public == leaf.public_key()
    assert spki_sha256(public) == facts_of(parse_certificate(parse_bundle(crafted.chain)[0])).spki_sha256
    assert "PRIVATE" not in repr(crafted)
