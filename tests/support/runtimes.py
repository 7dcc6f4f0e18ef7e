"""Runtimes as values, for tests that need no folder."""

from mtlsctl.model.runtime import (
    Check,
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

ABLE = Enforcement(
    anchors=True,
    identifiers=True,
    crls=True,
    separate_trust=True,
    refuse_all=True,
    server_names=True,
    client_certificate=frozenset(ClientCertificate),
    forward_identity=frozenset(ForwardIdentity),
    system_trust=True,
    server_certificate=True,
)

NGINX = Runtime(
    name="nginx",
    digest="nginx templates 1",
    roles=frozenset(Role),
    scope=ProcessScope.HOST,
    process="nginx",
    pointer=PointerKind.FILE,
    pointer_path="/etc/nginx/conf.d/mtlsctl.conf",
    enforcement=ABLE,
    settings=(
        Setting(name="egress", type=SettingType.CALLEE_PORTS, required=False, description=""),
        Setting(name="upstream", type=SettingType.HTTP_URL, required=False, description=""),
    ),
    check=Check.NGINX_TEST,
    reload=Reload.SIGNAL_HUP_MASTER,
)

NODE = Runtime(
    name="node",
    digest="node templates 1",
    roles=frozenset(Role),
    scope=ProcessScope.INSTANCE,
    process="node",
    pointer=PointerKind.CURRENT,
    pointer_path="/etc/mtlsctl/{service}/current",
    enforcement=ABLE,
    settings=(),
    check=Check.NODE_CHECK,
    reload=Reload.SIGNAL_HUP,
)

SPRING = Runtime(
    name="spring",
    digest="spring templates 1",
    roles=frozenset(Role),
    scope=ProcessScope.INSTANCE,
    process="java",
    pointer=PointerKind.CURRENT,
    pointer_path="/etc/mtlsctl/{service}/current",
    enforcement=ABLE,
    settings=(
        Setting(name="style", type=SettingType.CHOICE, required=True, description="", values=("once", "watching")),
    ),
    check=Check.NONE,
    reload=Reload.RESTART,
    watched_with=(("style", ("watching",)),),
    doors=Doors(names=("main",), one_port=True),
)
"""One that reads its files when it starts, and with one setting follows the certificates of its listeners."""

PEM = Runtime(
    name="pem",
    digest="pem templates 1",
    roles=frozenset(Role),
    scope=ProcessScope.INSTANCE,
    process="",
    pointer=PointerKind.CURRENT,
    pointer_path="/etc/mtlsctl/{service}/current",
    enforcement=ABLE,
    settings=(),
    check=Check.NONE,
    reload=Reload.NONE,
    needs_key=False,
)

RUNTIMES = {"nginx": NGINX, "node": NODE, "pem": PEM, "spring": SPRING}
