"""Runtimes as values: one process for a host (nginx), one for each service (node, pem), callers only (curl), and three
that exist to be refused (door, strict, editions).
"""

from __future__ import annotations

from mtlsctl.model.runtime import (
    Check,
    Condition,
    Doors,
    Enforcement,
    PointerKind,
    ProcessScope,
    Reload,
    Role,
    Runtime,
    Setting,
    SettingType,
)
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity


def runtime(
    name: str,
    *,
    roles: tuple[Role, ...] = tuple(Role),
    scope: ProcessScope = ProcessScope.INSTANCE,
    settings: tuple[tuple[str, SettingType, bool], ...] = (),
    refuse_all: bool = True,
    server_names: bool = False,
    modes: tuple[ClientCertificate, ...] = tuple(ClientCertificate),
    forwards: tuple[ForwardIdentity, ...] = (),
    cannot_forward: tuple[tuple[ForwardIdentity, str], ...] = (),
    choices: tuple[tuple[str, tuple[str, ...]], ...] = (),
    conditions: tuple[Condition, ...] = (),
    doors: Doors | None = None,
) -> Runtime:
    return Runtime(
        name=name,
        digest="0" * 64,
        roles=frozenset(roles),
        scope=scope,
        process=name,
        pointer=PointerKind.FILE if scope is ProcessScope.HOST else PointerKind.CURRENT,
        pointer_path="/etc/mtlsctl/{service}/current",
        enforcement=Enforcement(
            anchors=True,
            identifiers=False,
            crls=False,
            separate_trust=True,
            refuse_all=refuse_all,
            server_names=server_names,
            client_certificate=frozenset(modes),
            forward_identity=frozenset(forwards),
            cannot_forward=cannot_forward,
            server_certificate=name == "nginx",
        ),
        settings=(
            *(Setting(name=one, type=kind, required=required, description="") for one, kind, required in settings),
            *(
                Setting(name=one, type=SettingType.CHOICE, required=False, description="", values=values)
                for one, values in choices
            ),
        ),
        conditions=conditions,
        doors=doors or Doors(),
        check=Check.NONE,
        reload=Reload.NONE,
    )


NGINX_SETTINGS = (("upstream", SettingType.HTTP_URL, False), ("egress", SettingType.CALLEE_PORTS, False))
STRICT_SETTINGS = (("workers", SettingType.INTEGER, True), ("quiet", SettingType.BOOLEAN, False))

RUNTIMES = {
    one.name: one
    for one in (
        runtime(
            "nginx",
            scope=ProcessScope.HOST,
            settings=NGINX_SETTINGS,
            server_names=True,
            forwards=(ForwardIdentity.HEADERS,),
            cannot_forward=((ForwardIdentity.RFC9440, "no variable holds the certificate so"),),
        ),
        runtime("node"),
        runtime("pem"),
        runtime("curl", roles=(Role.CALLER,)),
        runtime("door", roles=(Role.SERVER,), refuse_all=False, modes=(ClientCertificate.REQUIRED,)),
        runtime("strict", settings=STRICT_SETTINGS),
        runtime(
            "editions",
            choices=(("edition", ("2.7", "3.5")), ("style", ("classic", "bundle"))),
            conditions=(Condition(setting="style", value="bundle", needs=(("edition", ("3.5",)),)),),
            doors=Doors(names=("main", "management"), one_port=True),
        ),
    )
}
