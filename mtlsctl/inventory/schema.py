"""The language of inventories as pydantic models: the source of the editor schema and of the reference.

Every value is text here, as the loader reads it; the types that editors see stand beside it. No run of mtlsctl but
`schema` and the documentation imports this module (see `shape`).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from mtlsctl.inventory.grammar import DURATION, MAX_ESTATE, MAX_PORT, MAX_SERVICE
from mtlsctl.model.identifiers import LABEL
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity, KeyAlgorithm, KeyOrigin, TrustModel

_LABEL: Final = f"^{LABEL.pattern}$"
_DURATION: Final = f"^{DURATION.pattern}$"

Word = Annotated[str, Field(min_length=1)]
Name = Annotated[Word, WithJsonSchema({"type": "string", "pattern": _LABEL, "title": "name"})]
ServiceName = Annotated[
    Word, WithJsonSchema({"type": "string", "pattern": _LABEL, "maxLength": MAX_SERVICE, "title": "name of a service"})
]
EstateName = Annotated[
    Word, WithJsonSchema({"type": "string", "pattern": _LABEL, "maxLength": MAX_ESTATE, "title": "name"})
]
Text = Annotated[Word, WithJsonSchema({"type": "string", "minLength": 1, "title": "text"})]
Port = Annotated[
    Word, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_PORT, "title": f"1 to {MAX_PORT}"})
]
Count = Annotated[Word, WithJsonSchema({"type": "integer", "minimum": 1, "title": "number from 1"})]
Switch = Annotated[Word, WithJsonSchema({"type": "boolean", "title": "true or false"})]
Duration = Annotated[
    Word, WithJsonSchema({"type": "string", "pattern": _DURATION, "title": "duration", "examples": ["90d", "12h"]})
]
KeysOf = Annotated[Word, WithJsonSchema({"type": "string", "enum": [one.value for one in KeyOrigin], "title": "keys"})]
Key = Annotated[Word, WithJsonSchema({"type": "string", "enum": [one.value for one in KeyAlgorithm], "title": "key"})]
TrustModelName = Annotated[
    Word, WithJsonSchema({"type": "string", "enum": [one.value for one in TrustModel], "title": "trust model"})
]
AuthorizeName = Annotated[
    Word, WithJsonSchema({"type": "string", "enum": ["callers", "any-member"], "title": "authorize"})
]
AnyMemberName = Annotated[Word, WithJsonSchema({"type": "string", "const": "any-member", "title": "any-member"})]
BindName = Annotated[Word, WithJsonSchema({"type": "string", "enum": ["all", "host"], "title": "bind"})]
ModeName = Annotated[
    Word,
    WithJsonSchema({"type": "string", "enum": [one.value for one in ClientCertificate], "title": "client certificate"}),
]
ForwardName = Annotated[
    Word,
    WithJsonSchema({"type": "string", "enum": [one.value for one in ForwardIdentity], "title": "form of an identity"}),
]
Protocol = Annotated[Word, WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3], "title": "TLS version"})]
Version = Annotated[Literal["1"], WithJsonSchema({"const": 1, "title": "version"})]
SettingWord = Annotated[Any, WithJsonSchema({"type": ["string", "integer", "boolean", "object"], "title": "setting"})]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class CertificateWords(_Part):
    """How leaves are made and when they are due."""

    key: Key = Field("ecdsa-p256", description="The key's algorithm and size.")
    lifetime: Duration = Field("90d", description="From issue to `not_after`; one hour at least.")
    renew_before: Duration = Field("30d", description="So long before its end a certificate is due.")


class DefaultAuthorityWords(_Part):
    """How CAs are made and when they are due."""

    key: Key = Field("ecdsa-p256", description="The key's algorithm and size.")
    lifetime: Duration = Field("1825d", description="At least as long as the leaves' lifetime.")
    renew_before: Duration = Field(
        "180d", description="So long before its end a CA is replaced; at least the leaves' lifetime."
    )


class AuthorityWords(DefaultAuthorityWords):
    """How one service's CA is made and when it is due."""

    generation: Count = Field("1", description="Raise it to have the CA replaced; callers go over without a gap.")


class TrustWords(_Part):
    """How a service's certificates are vouched for, and so what its peers trust."""

    model: TrustModelName = Field(
        description="`service-ca`: by a small CA of the service's own, so that what a listener trusts says who may "
        "call. `shared-ca`: by one CA for all, so that listeners compare names besides. `pinned`: each signs itself, "
        "and a renewal touches every peer."
    )


class EstateTrustWords(TrustWords):
    """The trust model of the estate, and how the CA is made that the services of `shared-ca` have in common."""

    certification_authority: AuthorityWords | None = Field(
        None, description="The shared CA, in place of the defaults, key by key."
    )


class DefaultsWords(_Part):
    """What every service inherits."""

    certificate: CertificateWords | None = Field(None, description="For leaves.")
    certification_authority: DefaultAuthorityWords | None = Field(None, description="For CAs.")


class HostWords(_Part):
    """A folder here (`directory`) or a machine behind SSH (`address` without `directory`)."""

    directory: Text | None = Field(
        None, description="The folder that stands for the host's root, as DESTDIR does; relative to the repository."
    )
    address: Text | None = Field(
        None,
        description="IP address or DNS name; where callers reach the host. A folder's is 127.0.0.1 unless given.",
    )
    seen_as: Text | None = Field(
        None, description="Folders only: the absolute path that stands for `directory` in rendered files, such as `/`."
    )
    pid_files: dict[Name, Text] | None = Field(
        None, description="Folders only: by process, the path below `directory` of the pid file to signal at a reload."
    )
    port: Port | None = Field(None, description="SSH only: the port; 22 unless given.")
    user: Text | None = Field(None, description="SSH only: the user to log in as.")
    identity_file: Text | None = Field(None, description="SSH only: path of the private key to log in with.")
    jump: Text | None = Field(None, description="SSH only: `[user@]host[:port]` to go through.")
    become: Switch | None = Field(None, description="SSH only: whether commands run through sudo; false unless given.")
    keys: KeysOf | None = Field(
        None,
        description="SSH only: where private keys are born. `host`, unless given: they are made there and never leave "
        "it; `controller` is for a host without openssl.",
    )


class OutsiderWords(_Part):
    """A caller from outside, whose certificate somebody else signs. One of `identities` and `authorize` is needed."""

    name: ServiceName = Field(description="What it is called here; no service and no external server has that name.")
    certificates: list[Text] = Field(
        description="PEM files below the repository with the self-signed CAs that sign its certificates.",
    )
    identities: list[Text] = Field(
        [],
        description="The subjects of its certificates: `api.acme.example` stands for exactly `CN=api.acme.example`; "
        "with `=` it is a whole subject as RFC 4514 writes it, `CN=api,O=Acme`. Compared as wholes, and the CA itself "
        "has to have signed: no intermediate.",
    )
    authorize: AnyMemberName | None = Field(
        None, description="`any-member` in place of identities: everybody whom that CA, or an intermediate, ever signs."
    )


class ExternalServerWords(_Part):
    """A server outside the estate, and the services that call it with their own certificates."""

    name: ServiceName = Field(description="What it is called here, and in the files of its callers.")
    endpoint: Text = Field(description="Its DNS name, which callers check, and its port: `api.bank.example:443`.")
    certificates: list[Text] | Literal["system"] = Field(
        description="PEM files below the repository with the self-signed CAs to believe; or `system`: what the "
        "caller's machine, or its runtime, believes by itself.",
    )
    callers: list[ServiceName] = Field(description="The services that may call it.")


class ServerCertificateWords(_Part):
    """A certificate that somebody else issued, such as a public CA, and a listener shows in place of ours."""

    chain: Text = Field(
        description="A PEM file below the repository: the certificate, then its intermediates. It presents every name "
        "of the service."
    )
    key_path: Text = Field(
        description="The absolute path of its private key on the host, below the folder of a `directory:` host. "
        "mtlsctl never moves or keeps that key."
    )


_SERVERS_TRUST: Final = (
    "By whom callers believe what a `server_certificate` shows, and needed beside it: PEM files below the repository "
    "with the self-signed CAs, or `system` for what each caller's machine, or its runtime, believes by itself."
)


class ListenerWords(_Part):
    """One door of a service."""

    name: Name = Field("main", description="Its name; needed where a service has several listeners.")
    port: Port = Field(description="The TCP port.")
    bind: BindName = Field("all", description="`all` addresses of the host, or the `host` address only.")
    client_certificate: ModeName = Field(
        "required",
        description="What is asked of a caller. `none`: no certificate, so anybody may call (one-way TLS). `optional`, "
        "for a migration: a declared caller's certificate or none at all, so anybody may call; a wrong one is refused.",
    )
    protocols: list[Protocol] = Field(["1.2", "1.3"], description="The TLS versions that are spoken.")
    authorize: AuthorizeName = Field(
        "callers",
        description="Under a shared CA: the declared `callers` by name, or with `any-member` everybody that the CA "
        "vouches for, for runtimes that cannot compare names.",
    )
    forward_identity: ForwardName | None = Field(
        None,
        description="Whether the program behind is told who called, in headers that no caller can set: `headers` "
        "(`X-SSL-Client-Verify`, `X-SSL-Client-DN`) or `rfc9440` (`Client-Cert`). Not every runtime can do both.",
    )
    server_certificate: ServerCertificateWords | None = Field(
        None, description="What this listener shows in place of a certificate that mtlsctl issues."
    )
    servers_trust: list[Text] | Literal["system"] | None = Field(None, description=_SERVERS_TRUST)
    callers: list[ServiceName | OutsiderWords] = Field(
        [],
        description="The services that may call, and callers from outside; everybody else is refused. Where no "
        "certificate is asked for: those that are set up to call.",
    )


class ServiceWords(_Part):
    """A service: where it runs, in which runtime, and who may call it."""

    runtime: Name = Field(description="The runtime's name; `mtlsctl runtimes` lists them.")
    hosts: list[Name] = Field(
        description="The hosts that it runs on, one at least; each gets a key and a certificate of its own.",
    )
    names: list[Text] = Field(
        [],
        description="The DNS names in its certificates; callers check the first. Without any it is "
        "`<service>.<estate>.internal`. No wildcards; international names as A-labels.",
    )
    addresses: Switch = Field("false", description="Whether the addresses of its hosts enter its certificates.")
    listen: Port | None = Field(None, description="Short form of one listener: its port.")
    bind: BindName | None = Field(None, description="Short form: where that listener is bound; `all` unless given.")
    client_certificate: ModeName | None = Field(
        None, description="Short form: what that listener asks of a caller; `required` unless given."
    )
    authorize: AuthorizeName | None = Field(None, description="Short form: who gets in under a shared CA.")
    forward_identity: ForwardName | None = Field(
        None, description="Short form: how that listener tells the program behind it who called."
    )
    server_certificate: ServerCertificateWords | None = Field(
        None, description="Short form: what that listener shows in place of a certificate that mtlsctl issues."
    )
    servers_trust: list[Text] | Literal["system"] | None = Field(
        None, description="Short form: by whom callers believe what it shows."
    )
    callers: list[ServiceName | OutsiderWords] | None = Field(
        None, description="Short form: the services, and callers from outside, that may call that listener."
    )
    listeners: list[ListenerWords] | None = Field(None, description="Long form: several doors, or one with options.")
    settings: dict[str, SettingWord] | None = Field(
        None, description="The settings of its runtime; each runtime's README lists and types them."
    )
    certificate: CertificateWords | None = Field(None, description="In place of the defaults, key by key.")
    certification_authority: AuthorityWords | None = Field(None, description="In place of the defaults, key by key.")
    trust: TrustWords | None = Field(None, description="In place of the estate's.")
    certificate_request: Text | dict[Name, Text] | None = Field(
        None,
        description="A file below the repository with a certificate request (PKCS#10, PEM) of somebody who keeps the "
        "key; of a service on several hosts a mapping of host to file. Names come from here, not from the request.",
    )


class MovedWords(_Part):
    """A host or a service that has another name now and is otherwise the same: its keys, certificates and CAs stay."""

    host: Name | None = Field(None, description="A host's old name, which is not declared any more.")
    service: ServiceName | None = Field(
        None,
        description="Instead of `host`: a service's old name, which is not declared any more. As long as the entry "
        "stands, its callers know it by both names.",
    )
    to: Name = Field(description="Its new name, which is; or one from which it was moved on.")


class RemovedWords(_Part):
    """A host that is gone and cannot be cleaned."""

    host: Name = Field(description="Its name, which is not declared any more.")
    abandon: Switch = Field(
        description="`true`: nothing is deleted there, and nothing waits for it. Its keys are good until their end."
    )


class InventoryWords(_Part):
    """Which services there are, where they run and who may call whom."""

    version: Version = Field(description="The version of this language.")
    name: EstateName = Field(description="The estate's name; it is part of every CA's subject.")
    defaults: DefaultsWords | None = Field(None, description="What services inherit unless they say otherwise.")
    trust: EstateTrustWords | None = Field(
        None, description="The trust model of the estate; `service-ca` unless given."
    )
    hosts: dict[Name, HostWords] = Field(description="The hosts by name.")
    services: dict[ServiceName, ServiceWords] = Field(description="The services by name.")
    moved: list[MovedWords] | None = Field(
        None, description="Hosts and services that were renamed. An entry may stay, for a state that has not seen it."
    )
    removed: list[RemovedWords] | None = Field(None, description="Hosts that are gone. An entry may stay, too.")
    external_servers: list[ExternalServerWords] = Field(
        [], description="Servers outside the estate; each is declared with the services that call it."
    )


class _Draft7(GenerateJsonSchema):
    schema_dialect = "http://json-schema.org/draft-07/schema#"


def draft7() -> dict[str, Any]:
    """JSON Schema draft 7, which is what editors' YAML support reads."""
    made = InventoryWords.model_json_schema(schema_generator=_Draft7, ref_template="#/definitions/{model}")
    made["definitions"] = made.pop("$defs")
    whole = _settled(made)
    assert isinstance(whole, dict)  # noqa: S101  a mapping stays one
    # A file of a folder holds a part of the whole: nothing but its kinds is required of it.
    del whole["required"]
    return {"$schema": _Draft7.schema_dialect, **whole}


def _settled(node: Any) -> Any:
    """Say it as draft 7 does: no nulls that nobody may write, no words beside a `$ref`, defaults of their own type."""
    if isinstance(node, list):
        return [_settled(one) for one in node]
    if not isinstance(node, dict):
        return node
    if any(one == {"type": "null"} for one in node.get("anyOf", ())):
        kept = [one for one in node["anyOf"] if one != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        node = {**rest, **(kept[0] if len(kept) == 1 else {"anyOf": kept})}
    if "$ref" in node and len(node) > 1:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        node = {"allOf": [{"$ref": node["$ref"]}], **rest}
    if "patternProperties" in node:
        node = {**node, "additionalProperties": False}
    if isinstance(node.get("default"), str) and node.get("type") in ("integer", "boolean"):
        node = {**node, "default": json.loads(node["default"])}
    return {key: _settled(value) for key, value in node.items()}
