"""An independent linter (pkilint, RFC 5280) over what we issue; the waivers are all listed here."""

from __future__ import annotations

import pytest
from pkilint import loader
from pkilint.pkix import certificate, extension, name
from pkilint.validation import ValidationFindingSeverity

from mtlsctl.model.topology import KeyAlgorithm
from mtlsctl.pki.stores import to_pem

from .making import authority_profile, certificate_profile, make_authority, make_leaf

WAIVED = {
    # How we make key identifiers; the finding is only a note of which of two methods it is.
    "pkix.subject_key_identifier_method_1_identified",
}
WAIVED_FOR_LOCALHOST = {
    # RFC 1034's preferred syntax; `localhost` is a name that every TLS stack takes.
    "pkix.invalid_domain_name_syntax",
}


def findings_of(der: bytes) -> set[str]:
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    document = loader.load_pem_certificate(to_pem([der]).decode(), "certificate")
    return {
        finding.finding.code
        for result in validator.validate(document.root)
        for finding in result.finding_descriptions
        if finding.finding.severity <= ValidationFindingSeverity.INFO
    }


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_pkilint_finds_nothing_in_a_ca_or_a_leaf(algorithm: KeyAlgorithm) -> None:
    authority = make_authority(authority_profile(key=algorithm))
    leaf = make_leaf(authority, certificate_profile(key=algorithm))
    assert set() == findings_of(authority.issuer.certificate) - WAIVED
    assert set() == findings_of(leaf.der) - WAIVED


def test_pkilint_finds_nothing_in_addresses_and_many_names() -> None:
    authority = make_authority(authority_profile(permitted_names=("example.com",), addresses=True))
    names = tuple(f"n{number}.example.com" for number in range(20))
    leaf = make_leaf(authority, certificate_profile(names=names, addresses=("192.0.2.1", "2001:db8::1")))
    assert set() == (findings_of(authority.issuer.certificate) | findings_of(leaf.der)) - WAIVED


def test_localhost_is_the_only_name_with_a_waiver() -> None:
    authority = make_authority(authority_profile(permitted_names=("localhost",)))
    leaf = make_leaf(authority, certificate_profile(names=("localhost",)))
    found = findings_of(authority.issuer.certificate) | findings_of(leaf.der)
    assert set() == found - WAIVED - WAIVED_FOR_LOCALHOST
