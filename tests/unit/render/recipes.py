"""Recipes by hand, and releases with real certificates written below a folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlsctl.deliver.layout import combined
from mtlsctl.model.credential import AuthorityId, CredentialId
from mtlsctl.model.release import Callee, Endpoint, Recipe, ServedListener, Socket
from mtlsctl.model.runtime import ProcessScope
from mtlsctl.model.topology import ClientCertificate, InstanceId, ListenerId, ProcessId
from mtlsctl.model.trust import PeerPolicy, vouched_for
from mtlsctl.render.catalog import load_catalog
from mtlsctl.render.process import render_pointer
from mtlsctl.render.release import Material, RenderedRelease, render_release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtlsctl.model.topology import SettingValue

HOST = "web1"
FOLDERS = load_catalog()


def anchors(*services: str) -> PeerPolicy:
    return PeerPolicy(anchors=frozenset(AuthorityId(service, 1) for service in services))


def door(
    port: int = 8443,
    *,
    callers: tuple[str, ...] = ("mail",),
    name: str = "main",
    address: str | None = None,
    protocols: tuple[str, ...] = ("1.2", "1.3"),
) -> ServedListener:
    return ServedListener(
        name=name,
        sockets=(Socket(address, port),),
        client_certificate=ClientCertificate.REQUIRED,
        protocols=protocols,
        callers=callers,
        policy=anchors(*callers),
    )


def call(service: str, port: int = 8443, *addresses: str, listener: str = "main") -> Callee:
    return Callee(
        listener=ListenerId(service, listener),
        endpoints=tuple(
            Endpoint(InstanceId(service, f"h{n}"), address, port)
            for n, address in enumerate(addresses or ("127.0.0.1",))
        ),
        server_name=f"{service}.calendar.internal",
        policy=anchors(service),
    )


def recipe(
    service: str,
    runtime: str,
    *,
    listeners: Iterable[ServedListener] = (),
    callees: Iterable[Callee] = (),
    settings: Iterable[tuple[str, SettingValue]] = (),
    root: Path | str = "",
    names: tuple[str, ...] | None = None,
) -> Recipe:
    instance = InstanceId(service, HOST)
    return Recipe(
        instance=instance,
        process=ProcessId(HOST, runtime if FOLDERS[runtime].runtime.scope is ProcessScope.HOST else service),
        runtime=runtime,
        runtime_digest=FOLDERS[runtime].runtime.digest,
        root=str(root),
        credential=CredentialId(instance, 1),
        server_names=names or (f"{service}.calendar.internal",),
        listeners=tuple(listeners),
        callees=tuple(callees),
        settings=tuple(settings),
    )


@cache
def _authority(service: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{service}.calendar CA g1")])
    builder = _builder(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return key, builder.sign(key, hashes.SHA256())


@cache
def _leaf(service: str, names: tuple[str, ...]) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    authority_key, authority = _authority(service)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
    builder = _builder(name, authority.subject, key)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return key, builder.sign(authority_key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def material(made: Recipe) -> Material:
    """Real certificates for the recipe: its leaf, and the CAs of its peers."""
    key, leaf = _leaf(made.instance.service, made.server_names)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    policies = [one.policy for one in made.listeners] + [one.policy for one in made.callees]
    return Material(
        chain=(_der(leaf),),
        certificate_sha256=hashlib.sha256(_der(leaf)).hexdigest(),
        spki_sha256=hashlib.sha256(spki).hexdigest(),
        anchors={anchor: _der(_authority(vouched_for(anchor))[1]) for policy in policies for anchor in policy.anchors},
    )


def written(made: Recipe, below: Path | None = None) -> tuple[RenderedRelease, Path]:
    """The release on disk, complete with its key, and its folder; `below` defaults to the recipe's root."""
    release = render_release(made, FOLDERS[made.runtime], material(made))
    service = Path(str(below or made.root)) / "etc/mtlsctl" / made.instance.service
    folder = service / "releases" / release.release
    for file in release.files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(file.content)
    key = _leaf(made.instance.service, made.server_names)[0].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.key").chmod(0o600)
    for path in release.combined:
        (folder / path).write_bytes(combined((folder / "tls.crt").read_bytes(), key))
    return release, folder


def make_current(folder: Path) -> None:
    """Switch the symlink `current` to this release, by one rename."""
    service = folder.parent.parent
    (service / "next").symlink_to(f"releases/{folder.name}")
    os.replace(service / "next", service / "current")  # noqa: PTH105  the rename is the point


def pointer(root: Path, *members: Recipe) -> Path:
    """All members written, and the pointer file of their program."""
    pairs = [(made, written(made)[0].release) for made in members]
    runtime = members[0].runtime
    file = root / FOLDERS[runtime].runtime.pointer_path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(render_pointer(FOLDERS[runtime], ProcessId(HOST, runtime), pairs))
    return file


def with_digest(made: Recipe, digest: str) -> Recipe:
    return replace(made, runtime_digest=digest)
