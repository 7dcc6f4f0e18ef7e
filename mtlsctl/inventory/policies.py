"""How certificates and CAs are made and when they are due, and whether those times fit each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import codes, grammar
from mtlsctl.model.topology import AuthorityPolicy, CertificatePolicy, KeyAlgorithm, TrustModel

if TYPE_CHECKING:
    from mtlsctl.inventory.problems import Problems
    from mtlsctl.inventory.source import Map
    from mtlsctl.inventory.words import Words

LEAST_LIFETIME: Final = timedelta(hours=1)
LONG_LIFETIME: Final = timedelta(days=398)

_KEY = grammar.choice({algorithm.value: algorithm for algorithm in KeyAlgorithm})
_MODEL = grammar.choice({model.value: model for model in TrustModel})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What a service inherits, or has once its own words are read. `shared` is for the CA that services share."""

    certificate: CertificatePolicy = field(default_factory=CertificatePolicy)
    authority: AuthorityPolicy = field(default_factory=AuthorityPolicy)
    trust: TrustModel = TrustModel.SERVICE_CA
    shared: AuthorityPolicy = field(default_factory=AuthorityPolicy)


def read_policies(words: Words, certificate: Map | None, authority: Map | None, inherited: Policies) -> Policies:
    """The inherited policies with the words of these two mappings in place of theirs."""
    if certificate is None and authority is None:
        return inherited
    policies = replace(
        inherited,
        certificate=_certificate(words, certificate, inherited.certificate),
        authority=_authority(words, authority, inherited.authority),
    )
    _check(words.problems, policies.certificate, _issuing(policies), certificate, authority)
    return policies


def read_shared(words: Words, node: Map | None, inherited: Policies) -> AuthorityPolicy:
    """How the CA is made that services share: as every CA, but for the words that stand under `trust`."""
    if node is None:
        return inherited.authority
    shared = _authority(words, node, inherited.authority)
    _check(words.problems, inherited.certificate, shared, None, node)
    return shared


def _issuing(policies: Policies) -> AuthorityPolicy | None:
    """The CA that signs such a leaf; none for one that signs itself."""
    match policies.trust:
        case TrustModel.SERVICE_CA:
            return policies.authority
        case TrustModel.SHARED_CA:
            return policies.shared
        case TrustModel.PINNED:
            return None


def read_trust(words: Words, node: Map | None, inherited: TrustModel) -> TrustModel:
    return words.read(node, "model", _MODEL, inherited)


def _certificate(words: Words, node: Map | None, inherited: CertificatePolicy) -> CertificatePolicy:
    if node is None:
        return inherited
    return CertificatePolicy(
        key=words.read(node, "key", _KEY, inherited.key),
        lifetime=words.read(node, "lifetime", grammar.duration, inherited.lifetime),
        renew_before=words.read(node, "renew_before", grammar.duration, inherited.renew_before),
    )


def _authority(words: Words, node: Map | None, inherited: AuthorityPolicy) -> AuthorityPolicy:
    if node is None:
        return inherited
    return AuthorityPolicy(
        key=words.read(node, "key", _KEY, inherited.key),
        lifetime=words.read(node, "lifetime", grammar.duration, inherited.lifetime),
        renew_before=words.read(node, "renew_before", grammar.duration, inherited.renew_before),
        generation=words.read(node, "generation", grammar.counted_from_one, inherited.generation),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """Something that must hold between times; it is reported at the first of its words that is written here."""

    holds: bool
    code: str
    message: str
    certificate: tuple[str, ...] = ()
    authority: tuple[str, ...] = ()


def _rules(leaf: CertificatePolicy, ca: AuthorityPolicy | None) -> tuple[_Rule, ...]:
    text = grammar.duration_text
    alone = (
        _Rule(
            holds=leaf.lifetime >= LEAST_LIFETIME,
            code=codes.LIFETIME_TOO_SHORT,
            message=f"a certificate lives at least one hour, not {text(leaf.lifetime)}",
            certificate=("lifetime",),
        ),
        _Rule(
            holds=leaf.renew_before < leaf.lifetime,
            code=codes.LIFETIMES,
            message=f"`renew_before`, {text(leaf.renew_before)}, is no less than `lifetime`, {text(leaf.lifetime)}",
            certificate=("renew_before", "lifetime"),
        ),
    )
    return alone if ca is None else (*alone, *_authority_rules(leaf, ca))


def _authority_rules(leaf: CertificatePolicy, ca: AuthorityPolicy) -> tuple[_Rule, ...]:
    text = grammar.duration_text
    return (
        _Rule(
            holds=ca.lifetime >= LEAST_LIFETIME,
            code=codes.LIFETIME_TOO_SHORT,
            message=f"a CA lives at least one hour, not {text(ca.lifetime)}",
            authority=("lifetime",),
        ),
        _Rule(
            holds=ca.renew_before < ca.lifetime,
            code=codes.LIFETIMES,
            message=f"`renew_before`, {text(ca.renew_before)}, is no less than `lifetime`, {text(ca.lifetime)}",
            authority=("renew_before", "lifetime"),
        ),
        _Rule(
            holds=leaf.lifetime <= ca.lifetime,
            code=codes.LIFETIMES,
            message=f"a certificate of {text(leaf.lifetime)} outlives its CA of {text(ca.lifetime)}",
            certificate=("lifetime",),
            authority=("lifetime",),
        ),
        _Rule(
            holds=ca.renew_before >= leaf.lifetime or leaf.lifetime > ca.lifetime,
            code=codes.LIFETIMES,
            message=f"a certificate of {text(leaf.lifetime)} may outlive a CA that is renewed "
            f"{text(ca.renew_before)} before its end: the CA's `renew_before` is at least the certificate's `lifetime`",
            certificate=("lifetime",),
            authority=("renew_before",),
        ),
    )


def _check(
    problems: Problems,
    leaf: CertificatePolicy,
    ca: AuthorityPolicy | None,
    certificate: Map | None,
    authority: Map | None,
) -> None:
    """A rule broken by inherited words alone was reported where those stand, and is not again."""
    for rule in _rules(leaf, ca):
        written = [
            (node, key)
            for node, keys in ((certificate, rule.certificate), (authority, rule.authority))
            for key in keys
            if node is not None and (key in node or key in node.lost)
        ]
        if rule.holds or not written or any(key in node.lost for node, key in written):
            continue
        node, key = written[0]
        problems.add(rule.code, rule.message, node.values_at[key], str(node[key]))
    if certificate is not None and leaf.lifetime > LONG_LIFETIME and "lifetime" in certificate:
        at, word = certificate.values_at["lifetime"], str(certificate["lifetime"])
        problems.warn(codes.LONG_LIFETIME, f"a certificate lifetime of {word} is longer than 398 days", at, word)
