"""Requests and issuance: keys are born, intents recorded, drafts linted, certificates signed, in that order.

What may have been signed is on record before it exists: all intents of a batch are committed before its first
signature (after Boulder's issuance cycle), and each signature has two rows, one before and one after.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from mtlsctl.deliver.layout import key_file
from mtlsctl.errors import DeliveryError, MtlsctlError, PreflightError, StateError
from mtlsctl.failpoints import reach
from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.trust import OutsideAnchor, in_order
from mtlsctl.operations.connections import at_each
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.issue import Issuer, draft_authority, draft_certificate, lint, sign
from mtlsctl.pki.keys import PublicKey, generate_key, load_private, private_der, private_pem, spki_sha256
from mtlsctl.pki.requests import read_request
from mtlsctl.store.codes import SWAPPED_CERTIFICATE
from mtlsctl.store.port import Intent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from mtlsctl.deliver.transport import Transport
    from mtlsctl.model.credential import AuthorityProfile, CertificateProfile, Credential
    from mtlsctl.model.plan import KeyRequest, Step, StepId
    from mtlsctl.model.state import State
    from mtlsctl.model.topology import InstanceId
    from mtlsctl.model.trust import TrustAnchor
    from mtlsctl.pki.issue import Draft, LintedDraft, SignedCertificate, Signer
    from mtlsctl.pki.keys import PrivateKey
    from mtlsctl.pki.probes import ProbeDraft
    from mtlsctl.store.port import StateWriter

KEY_AWAITED = "M4112"
OTHER_KEY = "M4113"


def intent_of(draft: Draft[AuthorityProfile] | Draft[CertificateProfile] | ProbeDraft) -> Intent:
    """What is recorded of a signature before it is made."""
    return Intent(
        issuer=draft.issuer_id,
        serial=draft.serial,
        subject=draft.subject_id,
        common_name=draft.common_name,
        not_after=draft.not_after,
        to_be_signed_sha256=draft.to_be_signed_sha256,
    )


def make_authorities(writer: StateWriter, profiles: Sequence[AuthorityProfile], now: datetime) -> None:
    """Make every CA of the plan; their keys are sealed in the same transaction that records their certificates."""
    if not profiles:
        return
    keys = {profile.id: generate_key(profile.key) for profile in profiles}
    drafts = [draft_authority(profile, keys[profile.id], now=now) for profile in profiles]
    intents = [intent_of(draft) for draft in drafts]
    writer.record_intents(intents)
    reach("intents.recorded")
    linted = [lint(draft) for draft in drafts]
    writer.record_signing(intents)
    reach("authority.signing")
    made = []
    for draft in linted:
        key = keys[draft.draft.profile.id]
        signed = sign(draft, key)
        reach("authority.signed")
        made.append((signed.value, signed.der, private_der(key)))
    writer.add_authorities(made)
    reach("authority.recorded")


def request_keys(
    requests: Iterable[KeyRequest], transports: Mapping[str, Transport]
) -> tuple[dict[InstanceId, PublicKey], dict[InstanceId, MtlsctlError]]:
    """The public halves of new keys, each on the host of its instance and nowhere else; and what failed."""
    by_host: dict[str, list[KeyRequest]] = defaultdict(list)
    for request in requests:
        by_host[request.credential.instance.host].append(request)
    answers, _ = at_each(
        {host: transports[host] for host in by_host},
        lambda host, transport: [_tried(request, transport) for request in by_host[host]],
    )
    born: dict[InstanceId, PublicKey] = {}
    failed: dict[InstanceId, MtlsctlError] = {}
    for host, those in by_host.items():
        for request, made in zip(those, answers[host], strict=True):
            if isinstance(made, MtlsctlError):
                failed[request.credential.instance] = made
            else:
                born[request.credential.instance] = made
    return born, failed


def _tried(request: KeyRequest, transport: Transport) -> PublicKey | MtlsctlError:
    try:
        made = _request_key(request, transport)
    except (DeliveryError, PreflightError) as error:
        return error
    reach("key.written")
    return made


def _request_key(request: KeyRequest, transport: Transport) -> PublicKey:
    service = request.credential.instance.service
    keeper = transport.keeper
    if keeper is not None:
        asked = read_request(keeper.request_key(service, request.key, service))
        if asked.key is not request.key:
            raise PreflightError(f"the host made another key than {request.key.value}", code=OTHER_KEY)
        return asked.public_key
    key = generate_key(request.key)
    public_key = key.public_key()
    transport.put_key(service, spki_sha256(public_key), private_pem(key))
    return public_key


def absent_keys(
    steps: Iterable[Step], state: State, transports: Mapping[str, Transport]
) -> dict[StepId, DeliveryError]:
    """Steps whose release holds a key that its owner keeps and has not put on the host: for each where it is to lie.

    A key of ours that is gone is no such thing; its certificate is issued anew.
    """
    absent: dict[StepId, DeliveryError] = {}
    for step in steps:
        credential = state.credentials.get(step.recipe.credential) if step.recipe and step.recipe.holds_key else None
        if credential is None or credential.profile.request_sha256 is None:
            continue
        instance, transport = step.id.instance, transports[step.id.instance.host]
        if not transport.expect_key(instance.service, credential.spki_sha256):
            place = transport.shown(str(key_file(instance.service, credential.spki_sha256)))
            absent[step.id] = DeliveryError(
                f"{instance} waits for the key that its owner keeps: {place}",
                code=KEY_AWAITED,
                help="its owner puts it there (PEM, not encrypted, mode 0600, of the user that runs mtlsctl); "
                "then run the same command again",
            )
    return absent


def absent_anchors(
    steps: Iterable[Step], profiles: Iterable[CertificateProfile], state: State
) -> dict[StepId, DeliveryError]:
    """Steps that are to trust one of the planned leaves that could not be issued: there is nothing to trust yet."""
    missing = {profile.id for profile in profiles} - state.credentials.keys()
    absent: dict[StepId, DeliveryError] = {}
    for step in steps:
        for anchor in in_order(_trusted(step) & missing):
            message = f"{step.id.instance} is to trust {anchor}, which could not be issued"
            absent[step.id] = DeliveryError(message, code=KEY_AWAITED, help="see to its host first")
    return absent


def issue_certificates(
    writer: StateWriter,
    profiles: Sequence[CertificateProfile],
    born: Mapping[InstanceId, PublicKey],
    transports: Mapping[str, Transport],
    now: datetime,
) -> tuple[int, dict[InstanceId, MtlsctlError]]:
    """Issue a leaf for every key that was born or brought; gives how many, and for which its own host did not sign.

    Raises before anything is signed when one is unfit.
    """
    asked = [profile for profile in profiles if profile.id.instance in born]
    if not asked:
        return 0, {}
    issuers = issuers_of(writer, {profile.authority for profile in asked if not profile.authority.is_leaf})
    drafts = [
        draft_certificate(profile, born[profile.id.instance], issuers.get(profile.authority), now=now)
        for profile in asked
    ]
    intents = [intent_of(draft) for draft in drafts]
    writer.record_intents(intents)
    reach("intents.recorded")
    linted = [lint(draft) for draft in drafts]
    keys = signing_keys(writer, issuers)
    writer.record_signing(intents)
    reach("certificate.signing")
    signed, failed = _signed(linted, keys, transports)
    reach("certificate.signed")
    writer.add_credentials([(one.value, one.der) for one in signed])
    reach("certificate.recorded")
    return len(signed), failed


def _signed(
    linted: Sequence[LintedDraft[CertificateProfile]],
    keys: Mapping[AuthorityId, PrivateKey],
    transports: Mapping[str, Transport],
) -> tuple[list[SignedCertificate[Credential]], dict[InstanceId, MtlsctlError]]:
    signed: list[SignedCertificate[Credential]] = []
    failed: dict[InstanceId, MtlsctlError] = {}
    for one in linted:
        try:
            signed.append(sign(one, keys.get(one.draft.profile.authority) or _own_key(one.draft, transports)))
        except DeliveryError as error:
            failed[one.draft.profile.id.instance] = error
        except PreflightError as error:
            if one.draft.profile.authority in keys:
                raise
            # The host that was to sign said something else, which is no reason to keep others waiting.
            failed[one.draft.profile.id.instance] = error
    return signed, failed


def _own_key(draft: Draft[CertificateProfile], transports: Mapping[str, Transport]) -> PrivateKey | Signer:
    """The key of a leaf that signs itself, on the host where it was born."""
    instance, spki = draft.profile.id.instance, spki_sha256(draft.unsigned.public_key)
    transport = transports[instance.host]
    if transport.keeper is not None:
        return partial(transport.keeper.sign_with_key, instance.service, spki)
    return load_private(transport.read_key(instance.service, spki))


def issuers_of(writer: StateWriter, wanted: Iterable[AuthorityId]) -> dict[AuthorityId, Issuer]:
    """The CAs as they sign, without their keys."""
    authorities = writer.snapshot().authorities
    return {one: Issuer(authority=authorities[one], certificate=writer.certificate(one)) for one in wanted}


def signing_keys(writer: StateWriter, wanted: Iterable[AuthorityId]) -> dict[AuthorityId, PrivateKey]:
    """The CAs' private keys, opened; raises SealedKeyError when the encryption key does not fit."""
    return {one: load_private(writer.authority_key(one)) for one in wanted}


def prove_anchors(
    writer: StateWriter,
    state: State,
    steps: Iterable[Step],
    transports: Mapping[str, Transport],
    unreachable: Mapping[str, DeliveryError],
) -> dict[InstanceId, MtlsctlError]:
    """Every anchor of ours that a release is to trust is of a key that is ours: its certificate may have been swapped.

    Who can write the state, or offer another one, can neither seal a CA's key nor put a leaf's key on its host. Gives
    the instances that are to trust a leaf whose host cannot be asked. Raises SealedKeyError or StateError M3050.
    """
    those = [step for step in steps if step.recipe is not None]
    unproven: dict[TrustAnchor, MtlsctlError] = {}
    for anchor in in_order({anchor for step in those for anchor in _trusted(step)}):
        if isinstance(anchor, OutsideAnchor):
            continue  # nobody here has its key; `prove_outside` looks at its bytes
        try:
            is_ours = (
                _is_sealed(writer, state, anchor)
                if isinstance(anchor, AuthorityId)
                else _is_on_its_host(writer, state, anchor, transports, unreachable)
            )
        except DeliveryError as error:
            unproven[anchor] = error
            continue
        if not is_ours:
            raise StateError(
                f"the certificate of {anchor} in the state is not of the key that was made for it",
                code=SWAPPED_CERTIFICATE,
                help="somebody altered the state: restore a backup with `mtlsctl state restore FILE`",
            )
    return {step.id.instance: unproven[one] for step in those for one in _trusted(step) & unproven.keys()}


def _trusted(step: Step) -> frozenset[TrustAnchor]:
    if step.recipe is None:
        return frozenset()
    policies = [served.policy for served in step.recipe.listeners]
    policies += [callee.policy for callee in step.recipe.callees]
    return frozenset(anchor for policy in policies for anchor in policy.anchors)


def _is_sealed(writer: StateWriter, state: State, anchor: AuthorityId) -> bool:
    authority = state.authorities.get(anchor)
    if authority is None or authority.key_destroyed:
        return True  # about to be made, or ended together with every leaf of it
    return (
        parse_certificate(writer.certificate(anchor)).public_key
        == load_private(writer.authority_key(anchor)).public_key()
    )


def _is_on_its_host(
    writer: StateWriter,
    state: State,
    anchor: CredentialId,
    transports: Mapping[str, Transport],
    unreachable: Mapping[str, DeliveryError],
) -> bool:
    if anchor not in state.credentials or anchor.instance in state.keys_missing:
        return True  # about to be made, or what is trusted has no key any more and is about to be replaced
    if anchor.instance.host in unreachable:
        raise unreachable[anchor.instance.host]
    transport = transports.get(anchor.instance.host)
    public_key = parse_certificate(writer.certificate(anchor)).public_key
    if transport is None or not isinstance(public_key, PublicKey):
        return False
    return transport.has_key(anchor.instance.service, spki_sha256(public_key))
