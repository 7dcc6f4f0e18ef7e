"""What a host says of itself: what nobody asked for is left out."""

from __future__ import annotations

from datetime import UTC, datetime

from mtlsctl.deliver.facts import parse_facts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_only_the_tools_and_programs_that_are_asked_for_are_taken() -> None:
    said = b"tool:openssl OpenSSL 3.0.2\nprogram:nginx nginx/1.24.0\nprogram:evil 1.2.3\ntool:evil 1.0\n"
    facts = parse_facts(said + b"".join(b"program:x%d 1.0\n" % one for one in range(50)), b"", asked=NOW, heard=NOW)
    assert (("openssl", "OpenSSL 3.0.2"),) == facts.tools
    assert (("nginx", "nginx/1.24.0"),) == facts.programs


def test_numbers_that_are_none_are_left_out() -> None:
    facts = parse_facts(b"uid " + b"9" * 299 + b"\nfree_kib " + b"9" * 299 + b"\n", b"", asked=NOW, heard=NOW)
    assert (-1, None) == (facts.uid, facts.free_bytes)
