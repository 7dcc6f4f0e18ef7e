"""What was inspected, for machines: no private key, no password, everything else in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.diagnostics import diagnostic_json
from mtlsctl.cli.views.page import stamp
from mtlsctl.model.topology import InstanceId
from mtlsctl.operations.standing import Role

if TYPE_CHECKING:
    from mtlsctl.operations.inspect import Inspection, Served
    from mtlsctl.operations.standing import Standing
    from mtlsctl.pki.contents import HeldKey
    from mtlsctl.verify.handshake import Seen


def inspect_document(found: Inspection) -> dict[str, object]:
    """Certificates are numbered from 1, as `chain`, `anchors` and `certificate` name them."""
    contents = found.contents
    return {
        "format_version": "1.0",
        "kind": "inspect",
        "tool_version": __version__,
        "target": found.target,
        "form": contents.form.value,
        "opened_with": None if contents.opened is None else contents.opened.value,
        "java_entries": contents.java_entries,
        "encryption": list(contents.schemes),
        "server": None if found.served is None else _server(found.served),
        "chain": [at + 1 for at in contents.chain],
        "anchors": [at + 1 for at in contents.anchors],
        "certificates": [_certificate(found, number) for number in range(len(found.facts))],
        "private_keys": [
            _key(key, found.key_standings[number], found.estate) for number, key in enumerate(contents.keys)
        ],
        "public_keys": [
            _key(key, found.key_standings[len(contents.keys) + number], found.estate)
            for number, key in enumerate(contents.public_keys)
        ],
        "requests": [_request(found, number) for number in range(len(contents.requests))],
        "revocation_lists": [_list(found, number) for number in range(len(contents.lists))],
        "estate": None if found.estate is None else dict(zip(("name", "lineage", "serial"), found.estate, strict=True)),
        "why_no_estate": found.why_no_estate,
        "exit_code": found.exit_code,
        "diagnostics": [diagnostic_json(one) for one in found.findings],
    }


def _certificate(found: Inspection, number: int) -> dict[str, object]:
    facts, held = found.facts[number], found.contents.certificates[number]
    return {
        "number": number + 1,
        "alias": held.alias,
        "is_java_entry": held.is_entry,
        "subject": facts.subject_dn,
        "issuer": facts.issuer_dn,
        "serial": facts.serial,
        "names": list(facts.names),
        "addresses": list(facts.addresses),
        "not_before": stamp(facts.not_before),
        "not_after": stamp(facts.not_after),
        "key": facts.key,
        "digest": facts.digest,
        "usages": list(facts.usages),
        "is_ca": facts.is_ca,
        "certificate_sha256": facts.certificate_sha256,
        "spki_sha256": facts.spki_sha256,
        "estate": None if found.estate is None else _standing(found.standings[number]),
    }


def _standing(standing: Standing) -> dict[str, object]:
    subject = standing.subject
    return {
        "role": standing.role.value.replace(" ", "_"),
        "instance": str(subject) if isinstance(subject, InstanceId) else None,
        "authority": None if subject is None or isinstance(subject, InstanceId) else str(subject),
        "outside": list(standing.outside),
        "number": standing.sequence,
        "signed_by": None if standing.signer is None else str(standing.signer),
        "let_in_by": [
            {
                "instance": str(one.instance),
                "listener": one.listener,
                "ports": list(one.ports),
                "members": None if one.members is None else list(one.members),
            }
            for one in standing.admits
        ],
        "believed_by": [{"caller": str(one.caller), "listener": str(one.listener)} for one in standing.believes],
    }


def _key(key: HeldKey, standing: Standing, estate: object) -> dict[str, object]:
    return {
        "alias": key.alias,
        "algorithm": key.algorithm,
        "spki_sha256": key.spki_sha256,
        "encrypted": key.encrypted,
        "certificate": None if key.certificate_given is None else key.certificate_given + 1,
        "chain": [at + 1 for at in key.chain],
        "estate": None if estate is None or standing.role is Role.STRANGER else _standing(standing),
    }


def _request(found: Inspection, number: int) -> dict[str, object]:
    one, standing = found.contents.requests[number], found.request_standings[number]
    return {
        "subject": one.subject,
        "names": list(one.names),
        "addresses": list(one.addresses),
        "key": one.algorithm,
        "digest": one.digest,
        "spki_sha256": one.spki_sha256,
        "is_proven": one.is_proven,
        "estate": None if found.estate is None or standing.role is Role.STRANGER else _standing(standing),
    }


def _list(found: Inspection, number: int) -> dict[str, object]:
    one, signer = found.contents.lists[number], found.list_signers[number]
    return {
        "issuer": one.issuer,
        "number": one.number,
        "this_update": stamp(one.this_update),
        "next_update": None if one.next_update is None else stamp(one.next_update),
        "revoked": one.revoked,
        "signed_by": None if signer is None else str(signer),
    }


def _server(served: Served) -> dict[str, object]:
    look, door = served.look, served.door
    return {
        "address": look.address,
        "port": look.port,
        "server_name": look.server_name,
        "server_name_from": served.name_from,
        "versions": {
            one.protocol: {"spoken": one.is_spoken, "reason": None if one.is_spoken else one.reason or None}
            for one in look.greetings
        },
        "asks_for_certificate": served.asks,
        "requires_certificate": served.requires,
        "ca_names": None
        if served.ca_names is None
        else [{"name": one.text, "anchor": None if one.anchor is None else str(one.anchor)} for one in served.ca_names],
        "without_certificate": _seen(look.without),
        "with_certificate": _seen(look.presenting),
        "presented": served.bearer,
        "instance": None if door is None else str(door.live.recipe.instance),
        "listener": None if door is None else door.served.name,
    }


def _seen(seen: Seen | None) -> dict[str, object] | None:
    if seen is None:
        return None
    return {"ending": seen.ending.name.lower(), "text": seen.evidence, "http_status": seen.http_status}
