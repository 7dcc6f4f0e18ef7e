from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mtlsctl.render.quoting import (
    LONGEST,
    Quoted,
    Untrusted,
    Unwritable,
    apache,
    apache_expression,
    apache_message,
    apache_name,
    apache_url,
    curl,
    curl_certificate,
    js,
    nginx,
    spring,
    spring_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_nginx_values_are_double_quoted() -> None:
    assert '"/etc/mtlsctl/a b/tls.crt"' == nginx(Untrusted("/etc/mtlsctl/a b/tls.crt"))


@pytest.mark.parametrize(
    "text", ["$host", 'a"b', "a\\b", "a\nb", "a\0b", "\u2028", "\u202e", "\ud800", "", "x" * (LONGEST + 1)]
)
def test_nginx_refuses_what_it_cannot_hold_unchanged(text: str) -> None:
    with pytest.raises(Unwritable):
        nginx(Untrusted(text))


def test_a_refusal_names_the_character_and_never_the_value() -> None:
    with pytest.raises(Unwritable, match=r"U\+000A") as refused:
        nginx(Untrusted("secret\nvalue"))
    assert "secret" not in str(refused.value)


def test_apache_arguments_are_double_quoted() -> None:
    assert '"/etc/mtlsctl/a b/100%/tls.crt"' == apache(Untrusted("/etc/mtlsctl/a b/100%/tls.crt"))


@pytest.mark.parametrize(
    "text", ["${X}", "%{X}", 'a"b', "a\\b", "a\\", "a\nb", "a\0b", "\u2028", "\u202e", "", "x" * (LONGEST + 1)]
)
def test_apache_refuses_what_it_would_expand_or_cannot_hold_unchanged(text: str) -> None:
    for quote in (apache, apache_url, apache_expression):
        if quote is apache_expression and text in ('a"b', "a\\b", "a\\"):
            continue  # it has an escape there
        with pytest.raises(Unwritable):
            quote(Untrusted(text))


def test_the_target_of_a_proxy_ends_with_one_slash() -> None:
    for text in ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"):
        assert '"http://127.0.0.1:8080/"' == apache_url(Untrusted(text))
    assert '"http://[::1]:8080/app/"' == apache_url(Untrusted("http://[::1]:8080/app"))


@pytest.mark.parametrize("text", ["::1", "a:80", "*.example.com", "a?"])
def test_the_name_of_a_virtual_host_is_no_address_with_colons_and_no_pattern(text: str) -> None:
    assert '"a.example.com"' == apache_name(Untrusted("a.example.com"))
    with pytest.raises(Unwritable):
        apache_name(Untrusted(text))


@pytest.mark.parametrize("text", ["http://h/?a", "http://h/#a", "http://h/*"])
def test_the_target_of_a_proxy_is_no_more_than_a_path(text: str) -> None:
    with pytest.raises(Unwritable):
        apache_url(Untrusted(text))


def test_strings_of_apache_expressions_escape_quotes_and_backslashes() -> None:
    assert r"""'O=a\\, b,CN=o\'c"d'""" == apache_expression(Untrusted("O=a\\, b,CN=o'c\"d"))


def test_a_message_of_apache_is_one_line() -> None:
    assert r'"schedule\n"' == apache_message(Untrusted("schedule"))
    for text in ("a%", "a$", "a\\n", "a\n", 'a"'):
        with pytest.raises(Unwritable):
            apache_message(Untrusted(text))


@pytest.mark.parametrize("text", ["$1", "a$", "%{X}", "100%"])
def test_strings_of_apache_expressions_name_no_variable_and_no_group(text: str) -> None:
    with pytest.raises(Unwritable):
        apache_expression(Untrusted(text))


def test_javascript_strings_are_ascii_and_safe_inside_html() -> None:
    assert r'"\u003c/script\u003e\u0026\u2028\"\n\u00e9"' == js(Untrusted('</script>&\u2028"\né'))


def test_curl_values_escape_quotes_and_backslashes() -> None:
    assert r'"a\"b\\c:d"' == curl(Untrusted('a"b\\c:d'))


def test_curl_certificates_escape_the_colon_that_begins_a_password() -> None:
    assert r'"/a\\:b\\\\c"' == curl_certificate(Untrusted("/a:b\\c"))


def test_curl_certificates_are_absolute_paths() -> None:
    with pytest.raises(Unwritable):
        curl_certificate(Untrusted("pkcs11:token"))


def test_parts_are_joined_before_they_are_quoted() -> None:
    assert '"https://mtlsctl_mail:8443"' == nginx(["https://mtlsctl_", Untrusted("mail"), ":", 8443])


@pytest.mark.parametrize("word", ["text", Quoted('"text"'), None, 5.0, True, [], [None], [True], [b"x"], {}])
def test_a_filter_takes_only_variables_and_lists_of_them(word: object) -> None:
    with pytest.raises(TypeError):
        nginx(word)


@pytest.mark.parametrize(
    "use",
    [str, "{}".format, "{:>9}".format, lambda value: f"{value}", "%s".__mod__, len, list, lambda value: value + "x"],
)
def test_a_value_from_outside_cannot_be_made_text(use: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        use(Untrusted("value"))


def test_the_representation_of_a_value_from_outside_does_not_show_it() -> None:
    assert "value" not in repr(Untrusted("value"))


def test_values_from_outside_compare_by_their_text() -> None:
    assert Untrusted("a") == Untrusted("a")
    assert Untrusted("a") != Untrusted("b")
    assert {Untrusted("a"): 1} == {Untrusted("a"): 1}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("file:/etc/mtlsctl/a/tls.crt", "file:/etc/mtlsctl/a/tls.crt"),
        (" a b", "\\ a\\ b"),
        ("a\\b", "a\\\\b"),
        ("pa$s#w{o}r=d!", "pa$s#w{o}r=d!"),
        ("é\U0001f600", "\\u00e9\\ud83d\\ude00"),
    ],
)
def test_a_value_of_spring_properties_is_ascii_with_javas_escapes(text: str, written: str) -> None:
    assert written == spring(Untrusted(text))


@pytest.mark.parametrize("text", ["${x}", "a${", "#{1}", "a\nb", "a\rb", "\0", "\u2028", "\ud800", ""])
def test_what_spring_would_replace_or_break_at_is_refused(text: str) -> None:
    with pytest.raises(Unwritable):
        spring(Untrusted(text))


def test_a_placeholder_that_two_parts_would_make_is_refused() -> None:
    with pytest.raises(Unwritable, match="replace"):
        spring([Untrusted("a$"), Untrusted("{b}")])


def test_a_name_in_springs_keys_stands_in_brackets() -> None:
    assert "[ledger.admin-2]" == spring_name(Untrusted("ledger.admin-2"))


@pytest.mark.parametrize("text", ["a]", "A", "a_b", "a b", "a=b", "a:b", "a\\", ".a", "a.", "${a}", "é", ""])
def test_a_name_that_spring_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(Unwritable):
        spring_name(Untrusted(text))
