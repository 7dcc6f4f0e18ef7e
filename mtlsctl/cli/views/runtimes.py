"""What each runtime can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsctl import __version__
from mtlsctl.cli.views.page import Tone, columns, wrapped
from mtlsctl.model.topology import ClientCertificate, ForwardIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.cli.views.page import Page
    from mtlsctl.model.runtime import Runtime


def runtimes_text(runtimes: Mapping[str, Runtime], page: Page) -> str:
    head = ["runtime", "roles", "process", "check", "reload", "refuses by"]
    rows = [
        [one.name, _roles(one), one.scope.value, one.check.value, one.reload.value, _refuses_by(one)]
        for one in _sorted(runtimes)
    ]
    table = columns([head, *rows], indent="")
    lines = [page.paint(table[0], Tone.BOLD), *table[1:]]
    for one in _sorted(runtimes):
        for setting in one.settings:
            need = "required" if setting.required else "optional"
            first = f"  {one.name}: {setting.name} ({setting.type.value}, {need})  "
            lines += ["", *wrapped(setting.description, width=page.width, first=first, rest="      ")]
    return "\n".join(lines) + "\n"


def _sorted(runtimes: Mapping[str, Runtime]) -> list[Runtime]:
    return sorted(runtimes.values(), key=lambda one: one.name)


def _roles(runtime: Runtime) -> str:
    return " ".join(sorted((role.value for role in runtime.roles), reverse=True))


def _refuses_by(runtime: Runtime) -> str:
    able = runtime.enforcement
    kinds = (("anchors", able.anchors), ("identifiers", able.identifiers), ("CRLs", able.crls))
    return " ".join(name for name, is_able in kinds if is_able) or "-"


def runtimes_document(runtimes: Mapping[str, Runtime]) -> dict[str, object]:
    return {
        "format_version": "1.0",
        "kind": "runtimes",
        "tool_version": __version__,
        "runtimes": [_document(one) for one in _sorted(runtimes)],
        "diagnostics": [],
    }


def _document(one: Runtime) -> dict[str, object]:
    able = one.enforcement
    return {
        "name": one.name,
        "digest": one.digest,
        "roles": sorted(role.value for role in one.roles),
        "scope": one.scope.value,
        "check": one.check.value,
        "reload": one.reload.value,
        "enforces": {
            "anchors": able.anchors,
            "identifiers": able.identifiers,
            "crls": able.crls,
            "separate_trust": able.separate_trust,
            "refuse_all": able.refuse_all,
            "server_names": able.server_names,
            "client_certificate": [mode.value for mode in ClientCertificate if mode in able.client_certificate],
            "forward_identity": [form.value for form in ForwardIdentity if form in able.forward_identity],
        },
        "settings": [
            {
                "name": s.name,
                "type": s.type.value,
                "required": s.required,
                "description": s.description,
                "values": list(s.values),
            }
            for s in one.settings
        ],
    }
