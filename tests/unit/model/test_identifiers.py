"""Identifiers as RFC 9525 has them."""

from __future__ import annotations

import pytest

from mtlsctl.model.identifiers import LABEL, DnsId, InvalidIdentifier, IpId, check_identity


@pytest.mark.parametrize("text", ["a", "a.example.com", "xn--bcher-kva.example", "a-b.c0", "1.example.com", "a" * 63])
def test_a_dns_name_is_what_it_is(text: str) -> None:
    assert text == DnsId.parse(text).value


def test_a_dns_name_is_lower_case() -> None:
    assert DnsId("mail.example.com") == DnsId.parse("Mail.EXAMPLE.com")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a.example",
        "a-.example",
        "a_b.example",
        "*.example.com",
        "a b",
        "bücher.example",
        "a" * 64,
        ".".join(["a" * 49] * 6),
        "192.0.2.1",
        "example.1",
        "a\n",
        "a;b",
    ],
)
def test_what_is_no_dns_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier, match="a DNS name"):
        DnsId.parse(text)


def test_a_dns_name_has_at_most_253_characters() -> None:
    longest = ".".join(["a" * 49] * 5 + ["abc"])
    assert 253 == len(longest)
    assert longest == DnsId.parse(longest).value
    with pytest.raises(InvalidIdentifier):
        DnsId.parse(longest + "d")


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com", True),
        ("*.example.com", True),
        ("example.com", False),
        ("*.com", False),
        ("*.mail.example.com", False),
        ("m*.example.com", False),
        ("*", False),
    ],
)
def test_a_wildcard_stands_for_the_whole_first_label_and_nothing_else(presented: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is DnsId("mail.example.com").matches(presented)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [("example.com", True), ("mail.example.com", True), ("ample.com", False), ("smtp.mail.example.com", False)],
)
def test_a_constraint_covers_a_name_and_what_is_below_it(constraint: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is DnsId("mail.example.com").is_within(constraint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:192.0.2.1", "::ffff:c000:201")],
)
def test_an_address_has_one_text_form(text: str, expected: str) -> None:
    assert IpId.parse(expected) == IpId.parse(text)
    assert str(IpId.parse(text)) in (expected, "::ffff:192.0.2.1")


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.256", "mail.example.com", "2001:db8::1/64", "127.1", "[::1]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier, match="an address is"):
        IpId.parse(text)


def test_identifiers_sort_and_print_as_their_text() -> None:
    assert ["a.example", "b.example"] == [str(one) for one in sorted([DnsId("b.example"), DnsId("a.example")])]


@pytest.mark.parametrize(
    ("text", "expected"), [("mail", True), ("a", True), ("m-2", True), ("2", True), ("a" * 63, True)]
)
def test_a_label_is_what_our_own_names_look_like(text: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is bool(LABEL.fullmatch(text))


@pytest.mark.parametrize("text", ["", "Mail", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n", "ä"])
def test_what_is_no_label(text: str) -> None:
    assert None is LABEL.fullmatch(text)


@pytest.mark.parametrize(
    "text",
    [
        "api.acme.example",
        "batch 1",
        "mail@acme.example",
        "CN=api",
        "CN=api,OU=Payments & Returns,O=Acme",
        "O=Acme",
        "x" * 128,
    ],
)
def test_an_identity_is_what_every_program_writes_alike(text: str) -> None:
    check_identity(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " api",
        "api ",
        "a  b",
        "a,b",
        "a|b",
        "*.acme.example",
        'a"b',
        "a\\b",
        "a+b",
        "a;b",
        "a<b",
        "a#b",
        "a$b",
        "a%b",
        "a\nb",
        "a\x00b",
        "a\u00e9",
        "a\u202eb",
        "x" * 129,
        "CN=",
        "=api",
        "CN=api, O=Acme",
        "CN=api,",
        ",CN=api",
        "CN=api,,O=Acme",
        "CN=api+O=Acme",
        "CN=a=b",
        "cn=api",
        "emailAddress=a@b.example",
        "1.2.3=api",
        "CN=api\\,x",
        'CN="api"',
        "O=Acme/CN=api|CN=mail",
        ",".join(["CN=" + "x" * 100] * 20),
    ],
)
def test_what_programs_write_in_different_ways_is_no_identity(text: str) -> None:
    with pytest.raises(InvalidIdentifier):
        check_identity(text)
