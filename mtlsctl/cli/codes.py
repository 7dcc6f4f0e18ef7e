"""What each code means: the tables of every floor, and those of codes that have no table of their own."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from mtlsctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLES = (
    "mtlsctl.inventory.codes",
    "mtlsctl.planner.outside",
    "mtlsctl.planner.safety",
    "mtlsctl.planner.shown",
    "mtlsctl.pki.codes",
    "mtlsctl.render.codes",
    "mtlsctl.store.codes",
)
"""Modules with a mapping `MEANINGS`."""

_KINDS = MappingProxyType(
    {
        "1": ("inventory", "Change the file where the message points, then: mtlsctl validate"),
        "2": ("policy and safety of a plan", "Change the inventory where the message points, then: mtlsctl plan"),
        "3": ("state", "Look at it with mtlsctl state show, mtlsctl state check or mtlsctl journal"),
        "4": ("hosts and processes", "Repair what the message names, then run the same command again: it goes on"),
        "5": ("saved plans", "Make a new one: mtlsctl plan --out FILE"),
        "6": ("TLS", "Look at the evidence that mtlsctl verify prints"),
        "73": ("what inspect found", "Look at the file or the server that was inspected; the message says what it is"),
        "7": ("keys and CAs", "Nothing was delivered with it; do what the message's help says"),
        "9": ("mtlsctl itself", "Do what the message's help says"),
    }
)

MEANINGS = MappingProxyType(
    {
        "M1901": "Others than you and root can replace mtlsctl.yaml, or it is a link, so it is not believed.",
        "M1902": "The file mtlsctl.yaml is not a flat YAML mapping of texts.",
        "M1903": "A key in mtlsctl.yaml means nothing.",
        "M1904": "A key in mtlsctl.yaml is the operator's to set: a pull request can change that file.",
        "M1905": "A key that mtlsctl.yaml must have is missing.",
        "M1906": "A value in mtlsctl.yaml has not the form that it must have.",
        "M1907": "The project's inventory is reached through a symlink: it may lead out of the repository.",
        "M2201": "A certificate request asks for names that the inventory does not give; names come from there alone.",
        "M4101": "A file or folder of a host could not be read or written: permissions, a full disk, a missing folder.",
        "M4102": "Something on the host is not what it should be (a symlink, a stranger's file); it was left alone.",
        "M4103": "The key that a release needs is not on its host.",
        "M4105": "The file that names the releases was edited since the last apply; nothing was overwritten.",
        "M4107": "A switch failed and was rolled back: the process serves what it served before.",
        "M4108": "A switch failed, and so did putting back what was there. The process is degraded.",
        "M4109": "A process would name no release at all.",
        "M4112": "A certificate was issued for a key that its owner has not put on the host yet; its release waits.",
        "M4116": "The key of a certificate that somebody else issued is not where the inventory says.",
        "M4117": "The key of a certificate that somebody else issued cannot be read, so it cannot be compared.",
        "M4111": "A host's folder belongs to another estate: its lineage is not this one's.",
        "M4110": "A release of that name lies on the host, but does not hold what was rendered.",
        "M4201": "The runtime's own check refused the staged configuration; nothing was switched.",
        "M4202": "A pid file does not lead to the process that it should; nothing was signalled.",
        "M4203": "A reload was asked for, and the process kept its old configuration; it was rolled back.",
        "M4204": "After the reload the process does not serve the new certificate; it was rolled back.",
        "M4205": "A process ended when it was to take up a new configuration. What it had is in place again; start it.",
        "M4301": "The connection to a host was lost; what it had begun is found out at the next run.",
        "M4302": "A host did not answer in time.",
        "M4303": "A host cannot be reached: its name does not resolve, nobody listens there, or there is no way to it.",
        "M4304": "A host's key is not known, so nothing was said to it: compare its fingerprint, then trust it.",
        "M4305": "A host shows another key than the one that is known, or a revoked one: never accepted.",
        "M4306": "A host refuses the login, or lets us in and starts no program.",
        "M4307": "sudo on a host does not let us become root without a password.",
        "M4308": "A program that is needed is missing, here or on a host.",
        "M4309": "A host does not speak as it should; nothing that it said was believed.",
        "M4310": "A host said too much.",
        "M4311": "A jump host is in the way: it cannot be reached, refuses us, or does not reach the host behind it.",
        "M4312": "Another controller works on a host; the message says whose.",
        "M4313": "A host's clock and the one here are too far apart for certificates to begin and end as they should.",
        "M4314": "The SSH configuration, or a file that it names, cannot be honoured or read.",
        "M4315": "A key was asked for that its host keeps to itself.",
        "M4316": "A program on a host is too old for what is written for it.",
        "M4317": "Something listens already on a host where a service is to be served.",
        "M4318": "A program that would check what is written for it is not on its host.",
        "M4319": "There is too little room on a host.",
        "M5001": "The file is not a saved plan.",
        "M5002": "What the saved plan touches has moved since it was made.",
        "M5003": "The plan has another fingerprint than the one that was approved.",
        "M5004": "The saved plan was written in a format that this version does not read.",
        "M5005": "A saved plan lives for 24 hours.",
        "M5006": "The saved plan was made for another estate or another lineage.",
        "M5007": "The saved plan was applied already.",
        "M5008": "The file after --out exists and is not a plan, so it is not replaced.",
        "M5009": "There is no file of that name to apply.",
        "M5010": "The saved plan was altered after it was saved; a change of any byte is found.",
        "M7401": "A password that the inventory names is not set, or is not in the folder of secrets.",
        "M7402": "A password that the inventory names lies where others can read it.",
        "M9001": "A bug in mtlsctl. Where it happened is in a file that the message names; it holds no values.",
        "M9002": "The operating system refused something: permissions, a full disk, a missing file.",
        "M9101": "The command line is not understood.",
        "M9102": "No inventory is named, or it is not there.",
        "M9103": "The edge after --edge is none of the pairs that the inventory gives.",
        "M9104": "A question would have to be asked, and nobody is there to answer.",
        "M5101": "Going back would break calls that work now; --force accepts that.",
        "M5102": "No release was live before the one that is, so there is nothing to go back to.",
        "M5103": "A release that was live before is not on its host any more.",
        "M4113": "A host made a key of another kind than was asked for.",
        "M9112": "A host or a service was named that is nothing here.",
        "M9105": "There is no such code.",
        "M9107": "What is to be inspected is neither a file that exists nor HOST:PORT.",
        "M9108": "Flags of inspect do not go together, or what they name does not.",
        "M9109": "The service after --as has no live instance whose key can be read, or several.",
        "M9106": "The name cannot be that of the estate.",
        "M9110": "No service of that name has a certificate, so there is nothing that would vouch for it.",
    }
)


def tables() -> tuple[Mapping[str, str], ...]:
    """The table of every floor and the one here; no code stands in two of them."""
    return (MEANINGS, *(import_module(name).MEANINGS for name in _TABLES))


def meanings() -> Mapping[str, str]:
    """Every code -> its meaning."""
    return dict(sorted((code, meaning) for table in tables() for code, meaning in table.items()))


def explanation(code: str) -> str:
    """Code, kind, meaning, and what to do; raises UsageError for a code that does not exist."""
    wanted = code.upper().removeprefix("ERROR[").removesuffix("]")
    meaning = meanings().get(wanted)
    if meaning is None:
        raise UsageError(
            f"there is no code {wanted[:20]}", code="M9105", help="mtlsctl explain without a code lists them all"
        )
    kind, advice = _KINDS.get(wanted[1:3]) or _KINDS[wanted[1]]
    return f"{wanted}  ({kind})\n\n{_sentence(meaning)}\n\n{advice}.\n"


def _sentence(meaning: str) -> str:
    return meaning[:1].upper() + meaning[1:].rstrip(".") + "."


def listing() -> str:
    """All codes, one in a line."""
    return "".join(f"{code}  {_sentence(meaning)}\n" for code, meaning in meanings().items())
