"""Values as the columns and the JSON of a store, and back. Nothing here is secret."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mtlsctl.model.credential import (
    AuthorityId,
    AuthorityProfile,
    CertificateProfile,
    CredentialId,
    KeyUsage,
)
from mtlsctl.model.release import FileFact, Receipt, canonical_json
from mtlsctl.model.topology import DirectoryHost, InstanceId, KeyAlgorithm, KeyOrigin, SshHost

if TYPE_CHECKING:
    from mtlsctl.model.topology import Host

# Looked up rather than called: a snapshot does it for every row.
_ALGORITHMS = {algorithm.value: algorithm for algorithm in KeyAlgorithm}
_USAGES = {
    tuple(sorted(usage.value for usage in usages)): usages
    for usages in (frozenset(), *(frozenset({one}) for one in KeyUsage), frozenset(KeyUsage))
}

Subject = AuthorityId | CredentialId | str


def time_to_text(at: datetime) -> str:
    """UTC, microseconds, so that text sorts as time; raises ValueError for a time without a zone."""
    if at.tzinfo is None:
        msg = "a time without a zone is not a moment"
        raise ValueError(msg)
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def time_from_text(text: str) -> datetime:
    return datetime.fromisoformat(text)


def subject_to_json(subject: Subject) -> list[object]:
    """What a signature is for: an authority, a credential, or anything else by its name."""
    match subject:
        case AuthorityId():
            return ["authority", subject.service, subject.generation]
        case CredentialId():
            return ["credential", *subject.instance, subject.sequence]
        case _:
            return ["other", subject]


def subject_from_json(parts: list[Any]) -> Subject:
    match parts:
        case ["authority", str(service), int(generation)]:
            return AuthorityId(service, generation)
        case ["credential", str(service), str(host), int(sequence)]:
            return CredentialId(InstanceId(service, host), sequence)
        case ["other", str(name)]:
            return name
        case _:
            msg = "not a subject"
            raise ValueError(msg)


def authority_profile_to_text(profile: AuthorityProfile) -> str:
    return canonical_json(
        {
            "common_name": profile.common_name,
            "key": profile.key.value,
            "lifetime_seconds": profile.lifetime // timedelta(seconds=1),
            "permitted_names": list(profile.permitted_names),
            "addresses": profile.addresses,
        }
    )


def authority_profile(id: AuthorityId, plain: dict[str, Any]) -> AuthorityProfile:
    return AuthorityProfile(
        id=id,
        common_name=plain["common_name"],
        key=_ALGORITHMS[plain["key"]],
        lifetime=timedelta(seconds=plain["lifetime_seconds"]),
        permitted_names=tuple(plain["permitted_names"]),
        addresses=plain["addresses"],
    )


def certificate_profile_to_text(profile: CertificateProfile) -> str:
    return canonical_json(
        {
            "common_name": profile.common_name,
            "names": list(profile.names),
            "transitional_names": list(profile.transitional_names),
            "addresses": list(profile.addresses),
            "usages": sorted(usage.value for usage in profile.usages),
            "key": profile.key.value,
            "lifetime_seconds": profile.lifetime // timedelta(seconds=1),
            **({} if profile.request_sha256 is None else {"request_sha256": profile.request_sha256}),
        }
    )


def certificate_profile(id: CredentialId, authority: AuthorityId, plain: dict[str, Any]) -> CertificateProfile:
    return CertificateProfile(
        id=id,
        authority=authority,
        common_name=plain["common_name"],
        names=tuple(plain["names"]),
        transitional_names=tuple(plain["transitional_names"]),
        addresses=tuple(plain["addresses"]),
        usages=_USAGES[tuple(plain["usages"])],
        key=_ALGORITHMS[plain["key"]],
        lifetime=timedelta(seconds=plain["lifetime_seconds"]),
        request_sha256=plain.get("request_sha256"),
    )


def receipt_to_text(receipt: Receipt) -> str:
    return canonical_json(
        {
            "release": receipt.release,
            "release_digest": receipt.release_digest,
            "files": [list(fact) for fact in receipt.files],
        }
    )


def receipt(plain: dict[str, Any]) -> Receipt:
    return Receipt(
        release=plain["release"],
        release_digest=plain["release_digest"],
        files=tuple(map(FileFact._make, plain["files"])),
    )


def host_to_text(host: Host) -> str:
    """Where it is and how it is reached; the place in the inventory is not remembered."""
    if isinstance(host, DirectoryHost):
        return canonical_json(
            {
                "kind": "directory",
                "directory": host.directory,
                "address": host.address,
                "seen_as": host.seen_as,
                "pid_files": [list(pair) for pair in host.pid_files],
            }
        )
    return canonical_json(
        {
            "kind": "ssh",
            "address": host.address,
            "port": host.port,
            "user": host.user,
            "identity_file": host.identity_file,
            "jump": host.jump,
            "become": host.become,
            "keys": host.keys.value,
        }
    )


def host_from_text(name: str, text: str) -> Host:
    plain = json.loads(text)
    match plain.pop("kind"):
        case "directory":
            pid_files = tuple((process, path) for process, path in plain.pop("pid_files"))
            return DirectoryHost(name=name, pid_files=pid_files, **plain)
        case "ssh":
            keys = KeyOrigin(plain.pop("keys", KeyOrigin.HOST.value))  # absent in what was written before there was one
            return SshHost(name=name, keys=keys, **plain)
        case _:
            msg = "not a host"
            raise ValueError(msg)


def load_all(texts: list[str]) -> list[dict[str, Any]]:
    """Many JSON texts by one call of the parser, which is what makes a snapshot of thousands of rows quick."""
    values: list[dict[str, Any]] = json.loads("[" + ",".join(texts) + "]")
    return values
