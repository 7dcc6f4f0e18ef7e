"""Every way in which a staged release may not hold together, beside the one in which it does."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.errors import PreflightError
from mtlsctl.model.credential import AuthorityId, KeyUsage
from mtlsctl.model.keystore import StoreKind, StoreProfile, StoreSpecification
from mtlsctl.model.release import Callee, Endpoint, HeldFile, Recipe, ServedListener, Socket
from mtlsctl.model.secret import Secret
from mtlsctl.model.topology import ClientCertificate, InstanceId, KeyAlgorithm, ListenerId, ProcessId
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.pki.keys import generate_key, private_pem
from mtlsctl.pki.keystores import make_key_store, make_trust_store
from mtlsctl.pki.preflight import expected_bundles, preflight
from mtlsctl.pki.stores import to_pem

from .making import (
    DAY,
    NOW,
    P256,
    Authority,
    Leaf,
    authority_profile,
    certificate_profile,
    make_authority,
    make_leaf,
)
from .test_handshakes import unchecked_leaf

if TYPE_CHECKING:
    from collections.abc import Iterable

MAIL = make_authority(authority_profile("mail"))
SOCIAL = make_authority(authority_profile("social"))
BILLING = make_authority(authority_profile("billing"))
LEDGER = make_authority(authority_profile("ledger"))
LEAF = make_leaf(MAIL)
Files = dict[str, tuple[bytes, int]]


def anchor(authority: Authority) -> AuthorityId:
    return authority.issuer.authority.id


def policy(*authorities: Authority) -> PeerPolicy:
    return PeerPolicy(anchors=frozenset(map(anchor, authorities)))


def served(name: str, *callers: Authority, mode: ClientCertificate = ClientCertificate.REQUIRED) -> ServedListener:
    return ServedListener(
        name=name,
        sockets=(Socket(None, 8443),),
        client_certificate=mode,
        protocols=("1.2", "1.3"),
        callers=tuple(anchor(caller).service for caller in callers),
        policy=policy(*callers),
    )


def callee(listener: ListenerId, authority: Authority) -> Callee:
    name = f"{listener.service}.calendar.internal"
    endpoint = Endpoint(InstanceId(listener.service, "web1"), "127.0.0.1", 8444)
    return Callee(listener=listener, endpoints=(endpoint,), server_name=name, policy=policy(authority))


RECIPE = Recipe(
    instance=InstanceId("mail", "web1"),
    process=ProcessId("web1", "nginx"),
    runtime="nginx",
    runtime_digest="0" * 64,
    root="",
    credential=LEAF.credential.id,
    server_names=("mail.calendar.internal",),
    listeners=(served("main", SOCIAL, BILLING), served("closed")),
    callees=(callee(ListenerId("ledger", "main"), LEDGER), callee(ListenerId("ledger", "admin"), LEDGER)),
)


def pem(*authorities: Authority) -> bytes:
    return to_pem(authority.issuer.certificate for authority in authorities)


def good_files(leaf: Leaf = LEAF) -> Files:
    return {
        "tls.crt": (to_pem([leaf.der]), 0o640),
        "tls.key": (private_pem(leaf.key).reveal(), 0o600),
        "clients/main.pem": (pem(BILLING, SOCIAL), 0o640),
        "servers/ledger.pem": (pem(LEDGER), 0o640),
        "servers/ledger.admin.pem": (pem(LEDGER), 0o640),
        "nginx.conf": (b"server {}\n", 0o640),
    }


@dataclass(frozen=True)
class Staged:
    files: Files
    arguments: dict[str, Any]
    kept: dict[str, HeldFile] = field(default_factory=dict)

    def inspect(self) -> tuple[str, ...]:
        held = {path: HeldFile.of(content, mode) for path, (content, mode) in self.files.items()}
        return preflight(held | self.kept, **self.arguments)


def staged(changes: dict[str, tuple[bytes, int] | None] | None = None, leaf: Leaf = LEAF, **arguments: Any) -> Staged:
    files = {path: file for path, file in (good_files(leaf) | (changes or {})).items() if file is not None}
    known: Iterable[Authority] = (MAIL, SOCIAL, BILLING, LEDGER)
    return Staged(
        files,
        {
            "recipe": RECIPE,
            "credential": leaf.credential,
            "anchors": {anchor(one): one.issuer.certificate for one in known},
            "issuer": MAIL.issuer.certificate,
            "now": NOW,
        }
        | arguments,
    )


def test_a_release_that_holds_together_passes_without_a_word() -> None:
    assert () == staged().inspect()


def test_the_bundles_are_those_of_the_policy_and_a_closed_door_has_none() -> None:
    open_to_all = served("plain", SOCIAL, mode=ClientCertificate.NONE)
    recipe = replace(RECIPE, listeners=(*RECIPE.listeners, open_to_all))
    assert {
        "clients/main.pem": frozenset({anchor(SOCIAL), anchor(BILLING)}),
        "servers/ledger.pem": frozenset({anchor(LEDGER)}),
        "servers/ledger.admin.pem": frozenset({anchor(LEDGER)}),
    } == expected_bundles(recipe)


PASSWORD = Secret(b"the password")
STORES = (
    StoreSpecification(path="key.p12", kind=StoreKind.KEY, profile=StoreProfile.MODERN, alias="mail"),
    StoreSpecification(
        path="servers.p12",
        kind=StoreKind.ALL_SERVERS,
        profile=StoreProfile.MODERN,
        anchors=(("ledger-ca-g1", anchor(LEDGER)),),
    ),
    StoreSpecification(path="secrets/password", kind=StoreKind.PASSWORD, profile=StoreProfile.MODERN),
)


def key_store(leaf: Leaf = LEAF, alias: str = "mail", password: Secret = PASSWORD) -> bytes:
    return make_key_store(leaf.key, [leaf.der], alias=alias, password=password, profile=StoreProfile.MODERN)


def trust_store(authority: Authority = LEDGER, alias: str = "ledger-ca-g1") -> bytes:
    anchors = {alias: authority.issuer.certificate}
    return make_trust_store(anchors, password=PASSWORD, profile=StoreProfile.MODERN)


STORED: Files = {
    "key.p12": (key_store(), 0o600),
    "servers.p12": (trust_store(), 0o640),
    "secrets/password": (PASSWORD.reveal(), 0o600),
}


def test_stores_that_hold_what_they_must_pass_without_a_word() -> None:
    assert () == staged({**STORED}, stores=STORES).inspect()


BROKEN_STORES: dict[str, tuple[str, str, dict[str, tuple[bytes, int] | None]]] = {
    "no key store": ("M7201", r"key\.p12 is missing", {"key.p12": None}),
    "no password": ("M7201", r"secrets/password is missing", {"secrets/password": None}),
    "another password": ("M7108", r"key\.p12: the store cannot", {"secrets/password": (b"another one", 0o600)}),
    "a password cut short": ("M7107", r"key\.p12: a store's", {"secrets/password": (b"", 0o600)}),
    "not a store": ("M7108", r"servers\.p12", {"servers.p12": (b"x", 0o640)}),
    "another alias": ("M7212", r"key\.p12 holds another alias", {"key.p12": (key_store(alias="web"), 0o600)}),
    "another key": ("M7212", r"key\.p12 holds another key", {"key.p12": (key_store(make_leaf(MAIL)), 0o600)}),
    "other anchors": ("M7212", r"servers\.p12 holds other anchors", {"servers.p12": (trust_store(SOCIAL), 0o640)}),
    "other names": ("M7212", r"holds other anchors", {"servers.p12": (trust_store(alias="x"), 0o640)}),
    "a key store for trust": ("M7212", r"servers\.p12", {"servers.p12": (key_store(), 0o640)}),
    "a trust store for the key": ("M7212", r"key\.p12 holds another key", {"key.p12": (trust_store(), 0o600)}),
    "a key store that others read": ("M7209", r"key\.p12 has mode 0640", {"key.p12": (key_store(), 0o640)}),
    "a password that others read": ("M7209", r"has mode 0644", {"secrets/password": (b"the password", 0o644)}),
}


@pytest.mark.parametrize("fault", BROKEN_STORES)
def test_a_store_that_is_not_what_it_must_be_is_refused(fault: str) -> None:
    code, message, changes = BROKEN_STORES[fault]
    with pytest.raises(PreflightError) as refused:
        staged({**STORED, **changes}, stores=STORES).inspect()
    said = [refused.value.message, *refused.value.notes]
    assert any(re.search(message, one) for one in said), said
    assert code == refused.value.code
    assert "the password" not in "".join(said)


OTHER = make_leaf(MAIL)
FOREIGN = make_leaf(make_authority(authority_profile("mail")))
BROKEN: dict[str, tuple[str, str, dict[str, tuple[bytes, int] | None]]] = {
    "no chain": ("M7201", r"tls\.crt is missing", {"tls.crt": None}),
    "no key": ("M7201", r"tls\.key is missing", {"tls.key": None}),
    "no bundle": ("M7201", r"clients/main\.pem is missing", {"clients/main.pem": None}),
    "no servers": ("M7201", r"servers/ledger\.admin\.pem is missing", {"servers/ledger.admin.pem": None}),
    "another key": (
        "M7202",
        "does not belong",
        {"tls.key": (private_pem(generate_key(KeyAlgorithm.ECDSA_P256)).reveal(), 0o600)},
    ),
    "a key that is none": ("M7105", "cannot be read", {"tls.key": (b"secret words", 0o600)}),
    "empty key": ("M7105", "cannot be read", {"tls.key": (b"", 0o600)}),
    "empty chain": ("M7106", "no certificate in it", {"tls.crt": (b"", 0o640)}),
    "chain cut short": ("M7106", "no whole PEM", {"tls.crt": (to_pem([LEAF.der])[:-30], 0o640)}),
    "chain of garbage": ("M7104", "not an X.509", {"tls.crt": (to_pem([b"garbage"]), 0o640)}),
    "chain with its anchor": (
        "M7204",
        "holds 2 certificates",
        {"tls.crt": (to_pem([LEAF.der, MAIL.issuer.certificate]), 0o640)},
    ),
    "empty bundle": ("M7208", "no certificate in it", {"clients/main.pem": (b"", 0o640)}),
    "an anchor too few": ("M7208", "lacks billing CA g1", {"clients/main.pem": (pem(SOCIAL), 0o640)}),
    "an anchor too many": (
        "M7208",
        "that no edge declares",
        {"clients/main.pem": (pem(BILLING, SOCIAL, LEDGER), 0o640)},
    ),
    "an anchor twice": ("M7208", "twice", {"clients/main.pem": (pem(BILLING, SOCIAL, SOCIAL), 0o640)}),
    "the wrong server": ("M7208", "lacks ledger CA g1", {"servers/ledger.pem": (pem(BILLING), 0o640)}),
    "a leaf as an anchor": (
        "M7208",
        "not a self-signed CA",
        {"servers/ledger.pem": (pem(LEDGER) + to_pem([make_leaf(LEDGER).der]), 0o640)},
    ),
    "garbage as an anchor": (
        "M7208",
        "that no edge declares",
        {"servers/ledger.pem": (pem(LEDGER) + to_pem([b"garbage"]), 0o640)},
    ),
    "glued blocks": ("M7208", "no whole PEM", {"clients/main.pem": (pem(BILLING)[:-1] + pem(SOCIAL), 0o640)}),
    "a bundle for a closed door": ("M7208", "has no place", {"clients/closed.pem": (pem(SOCIAL), 0o640)}),
    "a bundle of another": ("M7208", "has no place", {"servers/billing.pem": (pem(BILLING), 0o640)}),
    "a key for the group": ("M7209", r"tls\.key has mode 0640", {"tls.key": (good_files()["tls.key"][0], 0o640)}),
    "a key for all": ("M7209", r"tls\.key has mode 0604", {"tls.key": (good_files()["tls.key"][0], 0o604)}),
    "a chain to write": ("M7209", r"tls\.crt has mode 0660", {"tls.crt": (good_files()["tls.crt"][0], 0o660)}),
    "configuration to write": ("M7209", r"nginx\.conf has mode 0642", {"nginx.conf": (b"server {}\n", 0o642)}),
    "a set-user bit": ("M7209", r"nginx\.conf has mode 4640", {"nginx.conf": (b"server {}\n", 0o4640)}),
    "a key elsewhere": ("M7211", r"backup holds a private key", {"backup": good_files()["tls.key"]}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_release_that_does_not_hold_together_is_refused_by_path(kind: str) -> None:
    code, message, changes = BROKEN[kind]
    with pytest.raises(PreflightError) as refused:
        staged(changes).inspect()
    told = [refused.value.message, *refused.value.notes]
    assert code == refused.value.code
    assert re.search(message, "\n".join(told))
    assert all(any(path in line for path in good_files() | changes) for line in told)


BOTH = "tls.combined"
ITS_KEY = good_files()["tls.key"][0]


def test_a_file_of_certificate_and_key_may_hold_a_key_where_it_belongs() -> None:
    made: dict[str, tuple[bytes, int] | None] = {BOTH: (to_pem([LEAF.der]) + ITS_KEY, 0o600)}
    assert () == staged(made, combined=(BOTH,)).inspect()
    with pytest.raises(PreflightError, match=r"tls\.combined holds a private key") as refused:
        staged(made).inspect()
    assert "M7211" == refused.value.code


@pytest.mark.parametrize(
    ("code", "file"),
    [
        ("M7201", None),
        ("M7209", (to_pem([LEAF.der]) + ITS_KEY, 0o640)),
        ("M7202", (to_pem([LEAF.der]), 0o600)),
        ("M7202", (ITS_KEY, 0o600)),
        ("M7202", (b"", 0o600)),
        ("M7202", (ITS_KEY + to_pem([LEAF.der]), 0o600)),
        ("M7202", (to_pem([OTHER.der]) + ITS_KEY, 0o600)),
        ("M7202", (to_pem([LEAF.der]) + private_pem(OTHER.key).reveal(), 0o600)),
        ("M7202", (to_pem([LEAF.der]) + ITS_KEY * 2, 0o600)),
        ("M7202", (to_pem([LEAF.der, OTHER.der]) + ITS_KEY, 0o600)),
    ],
)
def test_a_file_of_certificate_and_key_that_holds_anything_else_is_refused(
    code: str, file: tuple[bytes, int] | None
) -> None:
    with pytest.raises(PreflightError) as refused:
        staged({BOTH: file}, combined=(BOTH,)).inspect()
    assert code == refused.value.code
    assert BOTH in refused.value.message
    assert "PRIVATE" not in "".join([refused.value.message, *refused.value.notes])


def leaf_of(*usages: KeyUsage, **changes: Any) -> Leaf:
    return make_leaf(MAIL, certificate_profile(usages=frozenset(usages or KeyUsage), **changes))


def refusal(release: Staged) -> str:
    with pytest.raises(PreflightError) as refused:
        release.inspect()
    return "\n".join([refused.value.code + " " + refused.value.message, *refused.value.notes])


def test_another_certificate_than_the_issued_one_is_refused() -> None:
    assert "M7203 tls.crt does not begin with" in refusal(staged(leaf=OTHER, credential=LEAF.credential))


def test_a_credential_of_another_key_is_refused() -> None:
    wrong = replace(LEAF.credential, spki_sha256=OTHER.credential.spki_sha256)
    assert "M7202 tls.crt holds another key" in refusal(staged(credential=wrong))


def test_a_leaf_of_an_imitated_ca_is_refused() -> None:
    told = refusal(staged(leaf=FOREIGN))
    assert "M7204 tls.crt is not signed by mail.calendar CA g1" in told
    assert "key identifier" in told


def test_a_ca_in_place_of_the_leaf_is_refused() -> None:
    as_leaf = Leaf(MAIL.issuer.certificate, LEAF.credential, MAIL.key)
    assert "does not begin with an end entity" in refusal(staged(leaf=as_leaf))


def test_a_name_outside_the_cas_constraints_is_refused() -> None:
    outside = unchecked_leaf(MAIL, certificate_profile(names=("mail.calendar.internal", "social.calendar.internal")))
    assert "lies outside the names" in refusal(staged(leaf=outside))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (NOW + 91 * DAY, "tls.crt ended on"),
        (NOW - DAY, "tls.crt is not valid before"),
        (NOW + 2000 * DAY, "the CA of tls.crt ended on"),
    ],
)
def test_a_certificate_out_of_its_time_is_refused(now: object, message: str) -> None:
    assert message in refusal(staged(now=now))


def test_a_leaf_that_outlives_its_ca_is_refused() -> None:
    assert "outlives its CA" in refusal(staged(leaf=unchecked_leaf(MAIL, certificate_profile(), days=3000)))


def without_key(**changes: tuple[bytes, int] | None) -> Staged:
    return staged({"tls.key": None, **changes}, recipe=replace(RECIPE, holds_key=False))


def test_a_release_whose_key_its_owner_keeps_passes_without_it() -> None:
    assert () == without_key().inspect()


def test_without_its_key_a_release_is_refused_where_the_key_is_ours() -> None:
    assert "M7201 tls.key is missing" == refusal(staged({"tls.key": None}))


def test_without_a_key_the_chain_is_checked_all_the_same() -> None:
    assert "M7203 tls.crt does not begin with" in refusal(without_key(**{"tls.crt": (to_pem([OTHER.der]), 0o640)}))


def test_a_key_that_is_there_has_to_be_the_right_one_whoever_put_it_there() -> None:
    keyless = replace(RECIPE, holds_key=False)
    wrong = private_pem(generate_key(P256)).reveal()
    assert "M7202 tls.key does not belong" in refusal(staged({"tls.key": (wrong, 0o600)}, recipe=keyless))
    assert () == staged(recipe=keyless).inspect()


def test_every_name_of_the_recipe_has_to_be_presented() -> None:
    names = ("mail.calendar.internal", "a.mail.calendar.internal")
    recipe = replace(RECIPE, server_names=names)
    assert () == staged(leaf=leaf_of(names=names), recipe=recipe).inspect()
    assert "M7206 tls.crt does not present the name a.mail" in refusal(staged(recipe=recipe))


def test_addresses_of_the_recipe_have_to_be_presented_too() -> None:
    authority = make_authority(authority_profile("mail", addresses=True))
    leaf = make_leaf(authority, certificate_profile(addresses=("192.0.2.1",)))
    for address, passes in (("192.0.2.1", True), ("192.0.2.2", False)):
        recipe = replace(RECIPE, server_names=("mail.calendar.internal", address))
        release = staged(leaf=leaf, recipe=recipe, issuer=authority.issuer.certificate)
        if passes:
            assert () == release.inspect()
        else:
            assert "does not present the name 192.0.2.2" in refusal(release)


def test_a_listener_needs_server_auth_and_a_caller_client_auth() -> None:
    assert "M7207 tls.crt is not for servers" in refusal(staged(leaf=leaf_of(KeyUsage.CLIENT_AUTH)))
    assert "M7207 tls.crt is not for clients" in refusal(staged(leaf=leaf_of(KeyUsage.SERVER_AUTH)))
    one_way = replace(RECIPE, callees=tuple(replace(callee, asks=False) for callee in RECIPE.callees))
    assert () == staged(leaf=leaf_of(KeyUsage.SERVER_AUTH), recipe=one_way).inspect()
    mixed = replace(RECIPE, callees=(RECIPE.callees[0], *one_way.callees[1:]))
    assert "M7207 tls.crt is not for clients" in refusal(staged(leaf=leaf_of(KeyUsage.SERVER_AUTH), recipe=mixed))
    calls_only = replace(RECIPE, listeners=())
    assert () == staged({"clients/main.pem": None}, leaf=leaf_of(KeyUsage.CLIENT_AUTH), recipe=calls_only).inspect()


def test_an_anchor_whose_certificate_is_unknown_is_missing_from_the_bundle() -> None:
    assert "lacks billing CA g1" in refusal(staged(anchors={anchor(SOCIAL): SOCIAL.issuer.certificate}))


def test_an_anchor_that_ended_is_worth_a_word() -> None:
    ended = make_authority(authority_profile("social", lifetime=DAY), now=NOW - 3 * DAY)
    anchors = {anchor(one): one.issuer.certificate for one in (ended, BILLING, LEDGER)}
    release = staged({"clients/main.pem": (pem(BILLING, ended), 0o640)}, anchors=anchors)
    (warning,) = release.inspect()
    assert warning.startswith("clients/main.pem: social CA g1 ended on")


def many(count: int) -> list[Authority]:
    """CAs that differ in their name alone would do; their keys are made by the floor as all others are."""
    service = "s" * 36
    return [make_authority(authority_profile(f"{service}{number:04}")) for number in range(count)]


def budget_of(authorities: list[Authority]) -> Staged:
    recipe = replace(RECIPE, listeners=(served("main", *authorities),), callees=())
    anchors = {anchor(one): one.issuer.certificate for one in authorities}
    gone = {"servers/ledger.pem": None, "servers/ledger.admin.pem": None}
    return staged({"clients/main.pem": (pem(*authorities), 0o640), **gone}, recipe=recipe, anchors=anchors)


def test_the_names_of_a_listeners_cas_have_a_budget() -> None:
    authorities = many(1000)
    assert () == budget_of(authorities[:400]).inspect()
    (warning,) = budget_of(authorities[:600]).inspect()
    assert "above 30,000 Java callers may fail" in warning
    assert "above 64,000 every caller fails" in refusal(budget_of(authorities))


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refusal(staged({"clients/main.pem": (b"", 0o666), "tls.key": (b"", 0o644)}))
    for part in ("tls.key: the private key", "clients/main.pem: there is no", "mode 0666", "mode 0644"):
        assert part in told


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ED25519, KeyAlgorithm.RSA_2048])
def test_other_key_algorithms_pass_alike(algorithm: KeyAlgorithm) -> None:
    assert () == staged(leaf=make_leaf(MAIL, certificate_profile(key=algorithm))).inspect()


def test_no_refusal_quotes_a_key() -> None:
    key = private_pem(LEAF.key).reveal()
    body = key.splitlines()[1:-1]
    for content in (key[:-40], key + b"x", key.replace(b"PRIVATE", b"PUBLIC"), b"".join(body)):
        with pytest.raises(PreflightError) as refused:
            staged({"tls.key": (content, 0o644), "copy.pem": (key, 0o644)}).inspect()
        told = "".join(traceback.format_exception(refused.value)) + repr(refused.value) + str(refused.value.notes)
        assert not any(line.decode()[:16] in told for line in body)


# keys that their host keeps to itself


def kept(path: str, spki_sha256: str | None, mode: int = 0o600) -> dict[str, HeldFile]:
    return {path: HeldFile(mode=mode, sha256="0" * 64, content=None, spki_sha256=spki_sha256)}


def test_a_key_that_its_host_keeps_is_known_by_its_public_half() -> None:
    good = replace(staged(), kept=kept("tls.key", LEAF.credential.spki_sha256))
    assert () == good.inspect()
    for other in ("0" * 64, None):
        with pytest.raises(PreflightError) as refused:
            replace(staged(), kept=kept("tls.key", other)).inspect()
        assert "does not belong" in refused.value.message


def test_a_host_keeps_nothing_else_to_itself() -> None:
    with pytest.raises(PreflightError, match=r"clients/main\.pem is not shown by its host"):
        replace(staged(), kept=kept("clients/main.pem", None, 0o640)).inspect()


def test_a_file_of_certificate_and_key_that_its_host_keeps_is_of_the_same_key() -> None:
    both = kept(BOTH, LEAF.credential.spki_sha256) | kept("tls.key", LEAF.credential.spki_sha256)
    assert () == replace(staged(combined=(BOTH,)), kept=both).inspect()
    with pytest.raises(PreflightError, match="does not hold the key"):
        replace(staged(combined=(BOTH,)), kept=both | kept(BOTH, "0" * 64)).inspect()
