from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsctl.model.credential import AuthorityId, CredentialId, KeyUsage
from mtlsctl.model.topology import DirectoryHost, InstanceId, KeyAlgorithm, SshHost
from mtlsctl.store import records
from tests.contract.state_store import authority, credential, receipt

names = st.text(max_size=12)
numbers = st.integers(min_value=0, max_value=2**40)
subjects = (
    st.builds(AuthorityId, names, numbers)
    | st.builds(CredentialId, st.builds(InstanceId, names, names), numbers)
    | names
)
pairs = st.lists(st.tuples(names, names), max_size=3).map(tuple)
hosts = st.builds(
    DirectoryHost, name=names, directory=names, address=names, seen_as=st.none() | names, pid_files=pairs
) | st.builds(
    SshHost,
    name=names,
    address=names,
    port=numbers,
    user=st.none() | names,
    identity_file=st.none() | names,
    jump=st.none() | names,
    become=st.booleans(),
)


@given(subjects)
def test_a_subject_is_read_back_equal(subject: AuthorityId | CredentialId | str) -> None:
    plain = json.loads(json.dumps(records.subject_to_json(subject)))
    assert records.subject_from_json(plain) == subject
    assert type(records.subject_from_json(plain)) is type(subject)


@pytest.mark.parametrize("plain", [[], ["authority", "mail"], ["authority", 1, "mail"], ["more", "x"]])
def test_what_is_no_subject_is_refused(plain: list[object]) -> None:
    with pytest.raises(ValueError, match="not a subject"):
        records.subject_from_json(plain)


@given(hosts)
def test_a_host_is_read_back_equal(host: DirectoryHost | SshHost) -> None:
    assert records.host_from_text(host.name, records.host_to_text(host)) == host


def test_what_is_no_host_is_refused() -> None:
    with pytest.raises(ValueError, match="not a host"):
        records.host_from_text("alpha", '{"kind":"moon"}')


def test_a_profile_of_an_authority_is_read_back_equal() -> None:
    profile = authority()[0].profile
    assert records.authority_profile(profile.id, json.loads(records.authority_profile_to_text(profile))) == profile


@pytest.mark.parametrize("usages", [set(), *({one} for one in KeyUsage), set(KeyUsage)])
@pytest.mark.parametrize("key", list(KeyAlgorithm))
def test_a_profile_of_a_leaf_is_read_back_equal(usages: set[KeyUsage], key: KeyAlgorithm) -> None:
    from dataclasses import replace  # noqa: PLC0415

    profile = replace(credential()[0].profile, usages=frozenset(usages), key=key)
    plain = json.loads(records.certificate_profile_to_text(profile))
    assert records.certificate_profile(profile.id, profile.authority, plain) == profile


def test_a_receipt_is_read_back_equal() -> None:
    assert records.receipt(json.loads(records.receipt_to_text(receipt()))) == receipt()


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_read_back_equal(at: datetime) -> None:
    assert records.time_from_text(records.time_to_text(at)) == at


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_times_sort_as_their_texts_do(first: datetime, second: datetime) -> None:
    assert (records.time_to_text(first) < records.time_to_text(second)) == (first < second)


def test_another_zone_is_the_same_moment_and_no_zone_is_refused() -> None:
    east = datetime(2031, 5, 6, 9, tzinfo=timezone(timedelta(hours=2)))
    assert records.time_to_text(east) == "2031-05-06T07:00:00.000000+00:00"
    with pytest.raises(ValueError, match="zone"):
        records.time_to_text(datetime(2031, 5, 6))  # noqa: DTZ001
