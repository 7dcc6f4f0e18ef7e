"""Plans and outcomes made by hand: the views are told nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mtlsctl.model.credential import AuthorityId, AuthorityProfile, CertificateProfile, CredentialId, KeyUsage
from mtlsctl.model.diagnostic import Span
from mtlsctl.model.plan import (
    AccessChange,
    AuthorityChange,
    CertificateChange,
    Due,
    Op,
    Plan,
    Reason,
    Risk,
    ServiceChange,
    Step,
    StepId,
    Wave,
)
from mtlsctl.model.probe import Expectation, Observation, Outcome, Presented, Probe
from mtlsctl.model.release import Endpoint, Recipe
from mtlsctl.model.state import State
from mtlsctl.model.topology import Edge, InstanceId, KeyAlgorithm, ListenerId, ProcessId

NOW = datetime(2026, 11, 22, 3, 45, tzinfo=UTC)
LINEAGE = "b7f05d8a-4a3e-4f0e-9d53-0d2f0c1b2a3c"
FILE = "inventories/production/services/ledger.yaml"
FINGERPRINT = "mp1:7c9e-41d2-a06b"


def span(line: int, column: int = 9, file: str = FILE) -> Span:
    return Span(file, line, column, column + 6)


def authority(service: str, generation: int = 1) -> AuthorityProfile:
    return AuthorityProfile(
        id=AuthorityId(service, generation),
        common_name=f"{service}.payments CA g{generation}",
        key=KeyAlgorithm.ECDSA_P256,
        lifetime=timedelta(days=1825),
        permitted_names=(f"{service}.payments.internal",),
        addresses=False,
    )


def certificate(service: str, host: str, *, number: int = 1, names: tuple[str, ...] = ()) -> CertificateProfile:
    return CertificateProfile(
        id=CredentialId(InstanceId(service, host), number),
        authority=AuthorityId(service, 1),
        common_name=service,
        names=names or (f"{service}.payments.internal",),
        transitional_names=(),
        addresses=(),
        usages=frozenset({KeyUsage.SERVER_AUTH, KeyUsage.CLIENT_AUTH}),
        key=KeyAlgorithm.ECDSA_P256,
        lifetime=timedelta(days=90),
    )


def recipe(service: str, host: str, *, runtime: str = "nginx", process: str | None = None, number: int = 1) -> Recipe:
    return Recipe(
        instance=InstanceId(service, host),
        process=ProcessId(host, process or runtime),
        runtime=runtime,
        runtime_digest="ab" * 32,
        root="",
        credential=CredentialId(InstanceId(service, host), number),
        server_names=(f"{service}.payments.internal",),
    )


def step(service: str, host: str, wave: Wave, *, runtime: str = "nginx", gone: bool = False) -> Step:
    made = recipe(service, host, runtime=runtime)
    return Step(
        id=StepId(InstanceId(service, host), wave),
        process=made.process,
        recipe=None if gone else made,
        waits_for=frozenset(),
    )


def access(caller: str, listener: str, *, op: Op = Op.ADD, line: int = 14, port: int = 8443) -> AccessChange:
    edge = Edge(caller, ListenerId(listener, "main"))
    if op is Op.REMOVE:
        return AccessChange(op=op, edge=edge, port=port, span=None, reason="no longer a caller")
    return AccessChange(op=op, edge=edge, port=port, span=span(line))


def empty_plan() -> Plan:
    return Plan(
        estate="payments",
        lineage=LINEAGE,
        serial=41,
        inventory_digest="cd" * 32,
        created_at=NOW,
        next_due=Due(subject="gate@gate-1", at=NOW + timedelta(days=24, hours=3)),
        fingerprint="mp1:0000-0000-0000",
        unchanged_instances=31,
    )


def everyday_plan() -> Plan:
    """One caller in, one out, a new host, a new name, renewals that are due."""
    new, old = certificate("ledger", "db-3"), ("ledger.payments.internal",)
    renamed = tuple(
        certificate("ledger", host, number=2, names=("ledger.payments.internal", "ro.ledger.example"))
        for host in ("db-1", "db-2")
    )
    return Plan(
        estate="payments",
        lineage=LINEAGE,
        serial=41,
        inventory_digest="cd" * 32,
        created_at=NOW,
        access=(access("billing", "ledger"), access("reporting", "ledger", op=Op.REMOVE)),
        risks=(Risk(code="M2101", summary="ledger gets a key on db-3 for the first time", span=span(7)),),
        certificate_changes=(
            CertificateChange(
                op=Op.ADD,
                instance=InstanceId("ledger", "db-3"),
                profile=new,
                names_before=(),
                not_after_before=None,
                reasons=(Reason.NEW_INSTANCE,),
                due=False,
            ),
            *(
                CertificateChange(
                    op=Op.CHANGE,
                    instance=profile.id.instance,
                    profile=profile,
                    names_before=old,
                    not_after_before=NOW + timedelta(days=49),
                    reasons=(Reason.NAMES_CHANGED,),
                    due=False,
                )
                for profile in renamed
            ),
            *(
                CertificateChange(
                    op=Op.CHANGE,
                    instance=InstanceId("gate", f"gate-{number}"),
                    profile=certificate("gate", f"gate-{number}", number=5),
                    names_before=("gate.payments.internal",),
                    not_after_before=NOW + timedelta(days=6),
                    reasons=(Reason.RENEWAL_DUE,),
                    due=True,
                )
                for number in range(1, 5)
            ),
        ),
        service_changes=(
            *(
                ServiceChange(
                    op=Op.ADD if host == "db-3" else Op.CHANGE,
                    instance=InstanceId("ledger", host),
                    details=("callers: +billing -reporting",),
                    due=False,
                )
                for host in ("db-1", "db-2", "db-3")
            ),
            ServiceChange(
                op=Op.CHANGE, instance=InstanceId("billing", "bill-1"), details=("servers: +ledger",), due=False
            ),
        ),
        steps=(
            *(step("ledger", host, wave) for host in ("db-1", "db-2") for wave in (Wave.EXTEND, Wave.ACTIVATE)),
            *(step("ledger", host, Wave.WITHDRAW) for host in ("db-1", "db-2", "db-3")),
            step("ledger", "db-3", Wave.ACTIVATE),
            step("billing", "bill-1", Wave.EXTEND, runtime="node"),
            *(step("gate", f"gate-{number}", Wave.ACTIVATE) for number in range(1, 5)),
        ),
        next_due=Due(subject="billing@bill-1", at=NOW + timedelta(days=12)),
        fingerprint=FINGERPRINT,
        unchanged_instances=22,
    )


def first_plan(services: int, callers: int = 5) -> Plan:
    """A first install of a chain of services, each called by those after it."""
    names = [f"service-{number:05}" for number in range(services)]
    hosts = [f"host-{number // 4:04}" for number in range(services)]
    return Plan(
        estate="payments",
        lineage=LINEAGE,
        serial=1,
        inventory_digest="ef" * 32,
        created_at=NOW,
        access=tuple(
            access(names[(number + other) % services], name, line=10 * number + 7)
            for number, name in enumerate(names)
            for other in range(1, callers + 1)
        ),
        authority_changes=tuple(
            AuthorityChange(
                op=Op.ADD, id=AuthorityId(name, 1), profile=authority(name), reasons=(Reason.NEW_SERVICE,), due=False
            )
            for name in names
        ),
        certificate_changes=tuple(
            CertificateChange(
                op=Op.ADD,
                instance=InstanceId(name, host),
                profile=certificate(name, host),
                names_before=(),
                not_after_before=None,
                reasons=(Reason.NEW_INSTANCE,),
                due=False,
            )
            for name, host in zip(names, hosts, strict=True)
        ),
        service_changes=tuple(
            ServiceChange(op=Op.ADD, instance=InstanceId(name, host), details=("nginx, port 8443",), due=False)
            for name, host in zip(names, hosts, strict=True)
        ),
        steps=tuple(step(name, host, Wave.ACTIVATE) for name, host in zip(names, hosts, strict=True)),
        fingerprint=FINGERPRINT,
    )


def state_of(plan: Plan, *, serial: int | None = None, **pointers: str) -> State:
    """A state whose pointers all hold the same, but those that are named `host__process`."""
    held = dict.fromkeys(plan.processes, "aa" * 32)
    held |= {ProcessId(*name.split("__")): value for name, value in pointers.items()}
    return State(
        lineage=plan.lineage, serial=plan.serial if serial is None else serial, estate=plan.estate, pointers=held
    )


def outcome(
    caller: str | None,
    listener: str,
    *,
    expected: Expectation = Expectation.REFUSED,
    observed: Observation = Observation.REFUSED,
    presented: Presented = Presented.DELIVERED,
    protocol: str = "1.3",
    evidence: str = "",
    status: int | None = None,
) -> Outcome:
    server = InstanceId(listener, "web1")
    return Outcome(
        probe=Probe(
            listener=ListenerId(listener, "main"),
            endpoint=Endpoint(server, "127.0.0.1", 8443),
            server_name=f"{listener}.payments.internal",
            protocol=protocol,
            presented=presented,
            caller=None if caller is None else InstanceId(caller, "web1"),
            expected=expected,
        ),
        observed=observed,
        evidence=evidence,
        http_status=status,
        served_sha256="5d" * 32,
    )


def good_outcomes() -> tuple[Outcome, ...]:
    """mail and social may call schedule; whatever else there is may not."""
    allowed = {"expected": Expectation.ALLOWED, "observed": Observation.ALLOWED, "status": 200}
    crafted = (Presented.FOREIGN_CA, Presented.EXPIRED, Presented.WRONG_USAGE)
    return tuple(
        one
        for protocol in ("1.2", "1.3")
        for one in (
            outcome("mail", "schedule", protocol=protocol, **allowed),  # type: ignore[arg-type]
            outcome("social", "schedule", protocol=protocol, **allowed),  # type: ignore[arg-type]
            outcome("reporting", "schedule", protocol=protocol, evidence="alert unknown CA"),
            outcome(None, "schedule", protocol=protocol, presented=Presented.NO_CERTIFICATE),
            *(outcome("mail", "schedule", protocol=protocol, presented=kind) for kind in crafted),
        )
    )


def mixed_outcomes() -> tuple[Outcome, ...]:
    """A contradiction, a timeout and one that nobody could try, among good ones."""
    return (
        *good_outcomes(),
        outcome("mail", "billing", observed=Observation.ALLOWED, evidence="HTTP 200 after the handshake", status=200),
        outcome("social", "billing", observed=Observation.UNREACHABLE, evidence="timed out after 5 s"),
        outcome(
            "schedule",
            "billing",
            expected=Expectation.ALLOWED,
            observed=Observation.NOT_PROBED,
            evidence="its key is on a host that is not a folder",
        ),
    )
