"""What was inspected, for people: what it is, who trusts it here, what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl.cli.views.diagnostics import diagnostics_text, summary_of
from mtlsctl.cli.views.page import Tone, cells, columns, counted, escaped, listed, padded, relative, shortened, wrapped
from mtlsctl.model.diagnostic import Severity
from mtlsctl.model.topology import outside
from mtlsctl.operations.standing import Role
from mtlsctl.pki.contents import Form, Opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mtlsctl.cli.views.page import Page
    from mtlsctl.operations.inspect import Inspection, Served
    from mtlsctl.operations.standing import Admitting, Standing
    from mtlsctl.pki.contents import HeldKey
    from mtlsctl.pki.inspect import CertificateFacts

_BLOCKS, _ROWS, _WARNINGS = 4, 20, 20
"""Certificates shown whole, in rows, and warnings shown, before `--full` is needed."""

_LABEL = 10
_BAR = 20
_FACT_LIMIT = 400
_PROOF = {True: "its key has signed it", False: "its key has NOT signed it", None: "cannot be told"}
_USES = {"serverAuth": "servers", "clientAuth": "clients"}


def inspect_text(found: Inspection, page: Page) -> str:
    """One screen. All that came from the file or the server is escaped, and cut where it is long."""
    blocks = [_headline(found, page)]
    if found.served is not None:
        blocks.append(_server(found.served, page))
    blocks += _certificates(found, page)
    blocks += [_key(found, number, page) for number in _shown(len(found.contents.keys), page)]
    blocks += [_public_key(found, number, page) for number in _shown(len(found.contents.public_keys), page)]
    blocks += [_request(found, number, page) for number in _shown(len(found.contents.requests), page)]
    blocks += [_list(found, number, page) for number in _shown(len(found.contents.lists), page)]
    if found.why_no_estate is not None:
        text = f"Who trusts it is not known: {found.why_no_estate}."
        blocks.append(wrapped(escaped(text), width=page.width, first="", rest=""))
    blocks.append(_verdict(found, page))
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _shown(count: int, page: Page) -> range:
    return range(count if page.full else min(count, _ROWS))


def _headline(found: Inspection, page: Page) -> list[str]:
    name, what = escaped(found.target), "TLS server" if found.served is not None else _holding(found)
    if cells(name) + 2 + cells(what) <= page.width:
        return [f"{page.paint(name, Tone.BOLD)}  {what}"]
    return [page.paint(name, Tone.BOLD), *wrapped(what, width=page.width, first="  ", rest="  ")]


def _holding(found: Inspection) -> str:
    contents = found.contents
    parts = [
        counted(len(held), one)
        for held, one in (
            (contents.certificates, "certificate"),
            (contents.keys, "private key"),
            (contents.public_keys, "public key"),
            (contents.requests, "request"),
            (contents.lists, "revocation list"),
        )
        if held
    ]
    return f"{_form(found)}: {', '.join(parts) or 'nothing in it'}"


def _form(found: Inspection) -> str:
    contents = found.contents
    form = contents.form.value + (f" version {contents.version}" if contents.version else "")
    if contents.java_entries is not None:
        form += f", {counted(contents.java_entries, 'entry', 'entries')} to Java"
    match contents.opened:
        case Opened.EMPTY:
            form += ", opened with the empty password"
        case Opened.WELL_KNOWN:
            form += f", opened with the well-known password `{Opened.WELL_KNOWN}`"
        case Opened.GIVEN:
            form += ", opened with the given password"
        case _:
            pass
    return form


# --- rows -----------------------------------------------------------------------------------------------------------


def _row(label: str, text: str, page: Page) -> list[str]:
    """`label  text`, wrapped below where the text begins."""
    first = "  " + padded(label, _LABEL)
    return wrapped(
        escaped(shortened(text, _FACT_LIMIT if not page.full else 10**6)),
        width=page.width,
        first=first,
        rest=" " * len(first),
    )


def _names(names: Sequence[str], page: Page) -> str:
    width = 10**6 if page.full else 2 * (page.width - _LABEL)
    return listed([shortened(one, 100) for one in names], width=width) or "none"


# --- a server -------------------------------------------------------------------------------------------------------


def _server(served: Served, page: Page) -> list[str]:
    look = served.look
    why = {"given": "", "target": "", "estate": ", which is what this estate has there"}[served.name_from]
    lines = _row("asked for", f"{look.server_name} at {look.address}{why}", page)
    lines += _row(
        "versions", "   ".join(_version(one.protocol, one.is_spoken, one.reason) for one in look.greetings), page
    )
    lines += _row(
        "chain", f"{counted(len(look.newest.chain), 'certificate')} as served" if look.newest else "none", page
    )
    lines += _row("asks for", _asks(served, page), page)
    lines += _requests(served, page)
    if served.door is not None:
        lines += _row("estate", f"{served.door.live.recipe.instance}, listener {served.door.served.name}", page)
    return lines


def _version(protocol: str, is_spoken: bool, reason: str) -> str:  # noqa: FBT001  a column of a row
    return f"TLS {protocol} yes" if is_spoken else f"TLS {protocol} no ({reason or 'no certificate'})"


def _asks(served: Served, page: Page) -> str:
    if served.asks is None:
        return "cannot be told"
    if not served.asks:
        return "no client certificate"
    how = {True: "; required", False: "; not required", None: "; whether it is required is not clear"}[served.requires]
    if not served.ca_names:
        return f"a client certificate{'' if served.ca_names is None else ', of no CA by name'}{how}"
    names = [f"{one.text} ({'not of this estate' if one.anchor is None else one.anchor})" for one in served.ca_names]
    return f"a client certificate of {_names(names, page)}{how}"


def _requests(served: Served, page: Page) -> list[str]:
    lines: list[str] = []
    if served.look.without is not None:
        lines += _row("answers", f"without a certificate: {served.look.without.evidence}", page)
    if served.look.presenting is not None:
        lines += _row("", f"as {served.bearer}: {served.look.presenting.evidence}", page)
    return lines


# --- certificates ---------------------------------------------------------------------------------------------------


def _certificates(found: Inspection, page: Page) -> list[list[str]]:
    count = len(found.facts)
    if count <= _BLOCKS or page.full:
        return [_certificate(found, number, page) for number in range(count)]
    rows = [
        [
            str(number + 1),
            escaped(shortened(found.facts[number].subject, 40)),
            "CA" if found.facts[number].is_ca else "end entity",
            relative(found.facts[number].not_after, found.now),
            _role(found.standings[number]) or "-",
        ]
        for number in range(min(count, _ROWS))
    ]
    lines = columns([["", "certificate", "kind", "ends", "here"], *rows])
    more = [f"  ... {count - _ROWS:,} more (--full lists them)"] if count > _ROWS else []
    return [[page.paint(lines[0], Tone.BOLD), *lines[1:], *more]]


def _certificate(found: Inspection, number: int, page: Page) -> list[str]:
    facts, standing, held = found.facts[number], found.standings[number], found.contents.certificates[number]
    title = "Certificate" if len(found.facts) == 1 else f"Certificate {number + 1}"
    alias = "" if held.alias is None else f"   alias `{escaped(shortened(held.alias, 60))}`"
    lines = [page.paint(f"{title}  {escaped(shortened(facts.subject, 100))}", Tone.BOLD) + alias]
    if not facts.is_ca or facts.names or facts.addresses:
        lines += _row("names", _names((*facts.names, *facts.addresses), page), page)
    lines += _row("issuer", "itself" if facts.is_self_issued else facts.issuer, page)
    lines += ["  " + padded("valid", _LABEL) + _validity(facts.not_before, facts.not_after, found.now, page)]
    lines += _row("key", facts.key + (f", signed with {facts.digest}" if facts.digest else ""), page)
    lines += _row("use", _use(facts), page)
    lines += _row("sha256", facts.certificate_sha256, page)
    lines += _row("SPKI", facts.spki_sha256 or "unknown", page)
    lines += _estate_rows(found, standing, page)
    return lines


def _validity(start: datetime, end: datetime, now: datetime, page: Page) -> str:
    """The dates with a bar of the time that has gone."""
    gone = min(1.0, max(0.0, (now - start) / (end - start))) if end > start else 1.0
    filled = round(gone * _BAR)
    ends = f"{'ends' if now < end else 'ended'} {relative(end, now)}"
    bar = f"  [{'#' * filled}{'-' * (_BAR - filled)}]" if page.width >= 80 else ""  # noqa: PLR2004  where it has room
    return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}{bar}  {ends}"


def _use(facts: CertificateFacts) -> str:
    uses = [_USES.get(usage, usage) for usage in facts.usages]
    if facts.is_ca:
        return "CA" + (f", for {', '.join(uses)}" if uses else "")
    return ", ".join(uses) or "any"


def _estate_rows(found: Inspection, standing: Standing, page: Page) -> Iterator[str]:
    if found.estate is None:
        return
    yield from _row("here", f"{found.estate[0]}: {_role(standing) or 'not of this estate'}", page)
    if standing.admits:
        doors = [_door(one, standing.role) for one in standing.admits]
        yield from _row("opens", _names(doors, page), page)
    if standing.believes:
        callers = [f"{one.caller} (at {one.listener})" for one in standing.believes]
        yield from _row("believed", f"by {_names(callers, page)}", page)
    if not standing.admits and not standing.believes:
        yield from _row("trusted", "by nobody here", page)


def _door(one: Admitting, role: Role) -> str:
    place = f"{one.instance}:{','.join(map(str, one.ports))}"
    if role not in {Role.AUTHORITY, Role.OUTSIDE}:
        return place
    return f"{place} to {'whatever it signed' if one.members is None else ' '.join(one.members) or 'nobody'}"


def _role(standing: Standing) -> str:
    number = "" if standing.sequence is None else f" (number {standing.sequence})"
    signer = "" if standing.signer is None else f", signed by {standing.signer}"
    beyond = " and ".join(map(outside, standing.outside))
    words = {
        Role.AUTHORITY: f"{standing.subject}",
        Role.LIVE: f"live certificate of {standing.subject}{number}{signer}",
        Role.WAITING: f"newest certificate of {standing.subject}{number}, not live yet{signer}",
        Role.EARLIER: f"an earlier certificate of {standing.subject}{number}{signer}",
        Role.PROBE: f"made for a verification{signer}",
        Role.UNRECORDED: f"not on record{signer}",
        Role.IMITATION: "bears the name of a CA here, with another key",
        Role.OUTSIDE: f"the CA of {beyond}",
        Role.OUTSIDE_MEMBER: f"signed by the CA of {beyond}",
        Role.SAME_KEY: f"another certificate for the key of {standing.subject}",
        Role.STRANGER: "",
    }
    return words[standing.role]


# --- keys, requests, revocation lists -------------------------------------------------------------------------------


def _key(found: Inspection, number: int, page: Page) -> list[str]:
    key = found.contents.keys[number]
    title = "Private key" if len(found.contents.keys) == 1 else f"Private key {number + 1}"
    alias = "" if key.alias is None else f"   alias `{escaped(shortened(key.alias, 60))}`"
    lines = [page.paint(f"{title}  {escaped(key.algorithm or 'not opened')}", Tone.BOLD) + alias]
    lines += _row("encrypted", key.encrypted or "no", page)
    lines += _row("SPKI", key.spki_sha256 or "not known without opening it", page)
    lines += _row("chain", _chain_of(key), page) if found.contents.certificates else []
    if found.estate is not None and key.spki_sha256 is not None:
        lines += _row("here", f"{found.estate[0]}: {_key_role(found.key_standings[number])}", page)
    return lines


def _chain_of(key: HeldKey) -> str:
    if key.chain:
        return "certificate " + ", ".join(str(at + 1) for at in key.chain)
    return "no certificate" if key.certificate_given is None else f"certificate {key.certificate_given + 1}"


def _key_role(standing: Standing) -> str:
    match standing.role:
        case Role.AUTHORITY:
            return f"the key of {standing.subject}"
        case Role.LIVE:
            return f"the live key of {standing.subject}"
        case Role.WAITING:
            return f"the newest key of {standing.subject}, not live yet"
        case _:
            return "not of what is live or newest in this estate"


def _public_key(found: Inspection, number: int, page: Page) -> list[str]:
    key = found.contents.public_keys[number]
    lines = [page.paint(f"Public key  {escaped(key.algorithm or 'unknown')}", Tone.BOLD)]
    lines += _row("SPKI", key.spki_sha256 or "unknown", page)
    if found.estate is not None:
        standing = found.key_standings[len(found.contents.keys) + number]
        lines += _row("here", f"{found.estate[0]}: {_key_role(standing)}", page)
    return lines


def _request(found: Inspection, number: int, page: Page) -> list[str]:
    one = found.contents.requests[number]
    lines = [page.paint(f"Certificate request  {escaped(shortened(one.subject, 100)) or '(no subject)'}", Tone.BOLD)]
    lines += _row("names", _names((*one.names, *one.addresses), page), page)
    lines += _row("key", one.algorithm + (f", signed with {one.digest}" if one.digest else ""), page)
    lines += _row("proof", _PROOF[one.is_proven], page)
    lines += _row("SPKI", one.spki_sha256, page)
    if found.estate is not None:
        lines += _row("here", f"{found.estate[0]}: {_key_role(found.request_standings[number])}", page)
    return lines


def _list(found: Inspection, number: int, page: Page) -> list[str]:
    one = found.contents.lists[number]
    ends = "does not say when the next is due"
    if one.next_update is not None:
        ends = f"next due {relative(one.next_update, found.now)}"
    lines = [page.paint(f"Revocation list  of {escaped(shortened(one.issuer, 100))}", Tone.BOLD)]
    lines += _row("number", "none" if one.number is None else str(one.number), page)
    lines += _row("made", f"{relative(one.this_update, found.now)}, {ends}", page)
    lines += _row("revoked", counted(one.revoked, "certificate"), page)
    signer = found.list_signers[number]
    if found.estate is not None:
        lines += _row("here", f"{found.estate[0]}: {f'signed by {signer}' if signer else 'not of this estate'}", page)
    return lines


# --- what is wrong --------------------------------------------------------------------------------------------------


def _verdict(found: Inspection, page: Page) -> list[str]:
    if not found.findings:
        what = "what it shows" if found.contents.form is Form.TLS else "it"
        return [f"{page.paint(page.symbol('ok'), Tone.ADD)} Nothing is wrong with {what}."]
    warnings = [one for one in found.findings if one.severity is Severity.WARNING]
    errors = [one for one in found.findings if one.severity is Severity.ERROR]
    hidden = 0 if page.full else max(0, len(warnings) - _WARNINGS)
    kinds = (errors, warnings[: len(warnings) - hidden])
    more = [f"... and {counted(hidden, 'more warning')} (--full shows them)", ""] if hidden else []
    texts = [diagnostics_text(kind, page, lambda _file, _line: None) for kind in kinds if kind]
    return ["\n".join(texts).rstrip("\n"), "", *more, summary_of(found.findings)]
