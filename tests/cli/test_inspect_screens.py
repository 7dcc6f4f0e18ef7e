"""The screens of inspect against their files: certificates from `inspected/`, the estate around them made by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from mtlsctl.cli.views.document import json_text
from mtlsctl.cli.views.inspect_json import inspect_document
from mtlsctl.cli.views.inspect_text import inspect_text
from mtlsctl.cli.views.page import Page, cells
from mtlsctl.model.credential import AuthorityId, CertificationAuthority, Credential, CredentialId
from mtlsctl.model.release import Callee, Endpoint, Receipt, ServedListener, Socket
from mtlsctl.model.state import Live, State
from mtlsctl.model.topology import ClientCertificate, DirectoryHost, InstanceId, ListenerId
from mtlsctl.model.trust import PeerPolicy
from mtlsctl.operations import inspect as operation
from mtlsctl.operations.inspect import Asked, AtHand, inspect
from mtlsctl.pki.contents import Passwords
from mtlsctl.pki.inspect import parse_certificate
from mtlsctl.pki.stores import parse_bundle
from mtlsctl.verify.handshake import Ending, Seen
from mtlsctl.verify.look import Greeting, Look
from mtlsctl.verify.wire import FirstFlight
from tests.cli.examples import LINEAGE, NOW, authority, certificate, recipe
from tests.cli.golden_files import golden

if TYPE_CHECKING:
    from mtlsctl.operations.inspect import Inspection
    from mtlsctl.store.port import StateReader

FOLDER = Path(__file__).parent / "inspected"
LEDGER, BILLING = AuthorityId("ledger", 1), AuthorityId("billing", 1)
INSTANCE = InstanceId("ledger", "db-1")
DOOR = ListenerId("ledger", "main")


def der(name: str) -> bytes:
    return parse_bundle((FOLDER / f"{name}.pem").read_bytes())[0]


CERTIFICATES = {
    LEDGER: der("ledger-ca"),
    BILLING: der("billing-ca"),
    CredentialId(INSTANCE, 1): der("ledger"),
}


def held(id: AuthorityId) -> CertificationAuthority:
    parsed = parse_certificate(CERTIFICATES[id])
    return CertificationAuthority(
        profile=authority(id.service),
        serial="1",
        not_before=parsed.not_before,
        not_after=parsed.not_after,
        certificate_sha256=parsed.sha256,
        spki_sha256=parsed.spki_sha256 or "",
    )


def state() -> State:
    """ledger listens and is called by billing."""
    parsed = parse_certificate(der("ledger"))
    credential = Credential(
        profile=certificate("ledger", "db-1"),
        serial="1",
        not_before=parsed.not_before,
        not_after=parsed.not_after,
        certificate_sha256=parsed.sha256,
        spki_sha256=parsed.spki_sha256 or "",
    )
    listener = ServedListener(
        name="main",
        sockets=(Socket(None, 8443),),
        client_certificate=ClientCertificate.REQUIRED,
        protocols=("1.2", "1.3"),
        callers=("billing",),
        policy=PeerPolicy(anchors=frozenset({BILLING})),
    )
    callee = Callee(
        listener=DOOR,
        endpoints=(Endpoint(INSTANCE, "192.0.2.10", 8443),),
        server_name="ledger.payments.internal",
        policy=PeerPolicy(anchors=frozenset({LEDGER})),
    )
    receipt = Receipt(release="ab" * 8, release_digest="cd" * 32, files=())
    caller = InstanceId("billing", "bill-1")
    return State(
        lineage=LINEAGE,
        serial=41,
        estate="payments",
        authorities={one: held(one) for one in (LEDGER, BILLING)},
        credentials={credential.id: credential},
        live={
            INSTANCE: Live(recipe=replace(recipe("ledger", "db-1"), listeners=(listener,)), receipt=receipt),
            caller: Live(recipe=replace(recipe("billing", "bill-1"), callees=(callee,)), receipt=receipt),
        },
        hosts={"db-1": DirectoryHost(name="db-1", directory="out/db-1", address="192.0.2.10")},
    )


@dataclass(frozen=True)
class Reader:
    """As much of a StateReader as looking needs."""

    def snapshot(self) -> State:
        return state()

    def certificate(self, id: AuthorityId | CredentialId) -> bytes:
        return CERTIFICATES[id]

    def signatures(self) -> tuple[()]:
        return ()


HERE = AtHand(reader=cast("StateReader", Reader()))
NOWHERE = AtHand(reader=None, why_not="no estate was found here")


def of_file(name: str, at_hand: AtHand = HERE) -> Inspection:
    found = inspect(Asked(target=str(FOLDER / f"{name}.pem")), at_hand, Passwords(), NOW, BytesIO())
    return replace(found, target=f"{name}.pem")


def of_server(monkeypatch: pytest.MonkeyPatch) -> Inspection:
    """It shows ledger's certificate and asks for one of its own CA, which was not applied."""
    asked = parse_certificate(CERTIFICATES[LEDGER]).subject.public_bytes()
    leaf = der("ledger")
    flight = FirstFlight(protocol="1.2", leaf_der=leaf, chain=(leaf,), ca_names=(asked,), asks=True)
    look = Look(
        address="192.0.2.10",
        port=8443,
        server_name="ledger.payments.internal",
        greetings=(
            Greeting(protocol="1.2", flight=flight),
            Greeting(protocol="1.3", reason="alert protocol_version"),
        ),
        without=Seen(ending=Ending.ALERT, detail="handshake_failure"),
    )
    monkeypatch.setattr(operation, "look_at", lambda *_: look)
    return inspect(Asked(target="192.0.2.10:8443"), HERE, Passwords(), NOW, BytesIO())


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("inspect-leaf.txt", Page()),
        ("inspect-leaf-narrow.txt", Page(width=60)),
        ("inspect-leaf-colour.txt", Page(colour=True)),
    ],
)
def test_a_live_certificate_is_the_screen_of_its_golden_file(name: str, page: Page) -> None:
    text = inspect_text(of_file("ledger"), page)
    assert golden(name, text) == text
    digests = ("sha256", "SPKI")  # never cut, so that they can be compared
    lines = [line for line in text.splitlines() if not line.strip().startswith(digests)]
    assert page.colour or max(map(cells, lines)) <= page.width


@pytest.mark.parametrize(
    ("name", "page"), [("inspect-wrong.txt", Page()), ("inspect-wrong-ascii.txt", Page(ascii=True))]
)
def test_a_chain_with_much_wrong_in_it_is_the_screen_of_its_golden_file(name: str, page: Page) -> None:
    text = inspect_text(of_file("wrong", NOWHERE), page)
    assert golden(name, text) == text


def test_a_server_is_the_screen_of_its_golden_file(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_server(monkeypatch)
    text = inspect_text(found, Page())
    assert golden("inspect-server.txt", text) == text
    document = json_text(inspect_document(found))
    assert golden("inspect-server.json", document) == document
    assert json.loads(document)["exit_code"] == 1
