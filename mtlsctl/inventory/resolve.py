"""The tree to the model: names become what they name, and everything that is wrong is said at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mtlsctl.inventory import grammar
from mtlsctl.inventory.certificates import CertificateFiles
from mtlsctl.inventory.digest import digest_of
from mtlsctl.inventory.hosts import read_hosts
from mtlsctl.inventory.outside import Beyond, check_outsiders, read_external_servers
from mtlsctl.inventory.policies import Policies, read_policies, read_shared, read_trust
from mtlsctl.inventory.ports import check_ports
from mtlsctl.inventory.refactoring import hosts_declared, read_refactoring, services_declared
from mtlsctl.inventory.services import Neighbours, read_services
from mtlsctl.inventory.shape import INVENTORY, Spot, fit
from mtlsctl.inventory.slips import warn
from mtlsctl.inventory.words import Words, map_of, seq_of
from mtlsctl.model.topology import Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtlsctl.inventory.problems import Problems
    from mtlsctl.inventory.source import Map
    from mtlsctl.model.runtime import Runtime

_VERSION: Final = grammar.choice({"1": 1})
_ESTATE: Final = grammar.label("an estate", grammar.MAX_ESTATE)


def resolve(tree: Map, runtimes: Mapping[str, Runtime], root: Path, problems: Problems) -> Inventory:
    """The inventory that the tree declares; raises InventoryError with all problems. The tree is used up."""
    fit(tree, INVENTORY, Spot("the inventory", tree.at), problems)
    words = Words(problems)
    words.read(tree, "version", _VERSION, 1)
    estate = words.read(tree, "name", _ESTATE, None, is_name=True)
    hosts_node = map_of(tree, "hosts")
    services_node = map_of(tree, "services")
    hosts = {} if hosts_node is None else read_hosts(words, hosts_node, root)
    external_node = seq_of(tree, "external_servers")
    neighbours = Neighbours(words, hosts_node, services_node, runtimes, external_node)
    files = CertificateFiles(words, root)
    defaults = _defaults(words, tree)
    # Names need the estate's; with a wrong one the rest is still looked at under a name that fits.
    services = (
        {} if services_node is None else read_services(words, services_node, estate or "x", neighbours, defaults, files)
    )
    beyond = Beyond(words=words, files=files, taken=neighbours.services)
    external_servers = read_external_servers(beyond, external_node, neighbours)
    check_outsiders(words, services.values())
    refactoring = read_refactoring(
        words,
        tree,
        hosts_declared(neighbours.hosts if neighbours.are_hosts_known else None),
        services_declared(
            neighbours.services if services_node is not None else None, {one.name for one in external_servers}
        ),
    )
    check_ports(services.values(), runtimes, problems)
    if estate is not None and hosts_node is not None and services_node is not None:
        warn(words, hosts, services, external_servers, runtimes, hosts_node)
    problems.raise_if_any()
    assert estate is not None  # noqa: S101  else there was a problem
    return Inventory(
        name=estate,
        hosts=hosts,
        services=services,
        digest=digest_of(estate, hosts, services, external_servers, defaults.shared, root, refactoring),
        shared_authority=defaults.shared,
        moved=refactoring.moved,
        renamed=refactoring.renamed,
        abandoned=refactoring.abandoned,
        external_servers=external_servers,
        certificates=files.found,
        chains=files.chains,
    )


def _defaults(words: Words, tree: Map) -> Policies:
    node = map_of(tree, "defaults")
    certificate, authority = map_of(node, "certificate"), map_of(node, "certification_authority")
    policies = read_policies(words, certificate, authority, Policies())
    trust = map_of(tree, "trust")
    shared = read_shared(words, map_of(trust, "certification_authority"), policies)
    return replace(policies, trust=read_trust(words, trust, policies.trust), shared=shared)
