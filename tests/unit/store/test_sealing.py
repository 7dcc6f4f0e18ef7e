from __future__ import annotations

import pytest

from mtlsctl.errors import SealedKeyError
from mtlsctl.model.secret import Secret
from mtlsctl.store.sealing import place_of, seal, unseal

KEY, OTHER_KEY = Secret(b"k" * 32), Secret(b"o" * 32)
VALUE = Secret(b"a private key of some length")
HERE = place_of("lineage", "authorities", "sealed_key", "mail", 1)


def test_a_sealed_value_opens_with_its_key_at_its_place() -> None:
    assert unseal(KEY, HERE, seal(KEY, HERE, VALUE)) == VALUE


def test_an_empty_value_is_a_value() -> None:
    assert unseal(KEY, HERE, seal(KEY, HERE, Secret(b""))) == Secret(b"")


@pytest.mark.parametrize(
    "place",
    [
        place_of("other", "authorities", "sealed_key", "mail", 1),
        place_of("lineage", "meta", "sealed_key", "mail", 1),
        place_of("lineage", "authorities", "key_check", "mail", 1),
        place_of("lineage", "authorities", "sealed_key", "mail", 2),
        place_of("lineage", "authorities", "sealed_key", "mail", "1"),
        place_of("lineage", "authorities", "sealed_key", "mail,1"),
        place_of("lineage", "authorities", "sealed_key"),
    ],
)
def test_a_sealed_value_opens_at_no_other_place(place: bytes) -> None:
    with pytest.raises(SealedKeyError):
        unseal(KEY, place, seal(KEY, HERE, VALUE))


def test_a_sealed_value_opens_with_no_other_key() -> None:
    with pytest.raises(SealedKeyError):
        unseal(OTHER_KEY, HERE, seal(KEY, HERE, VALUE))


def test_a_changed_bit_anywhere_is_refused_with_one_message() -> None:
    sealed = seal(KEY, HERE, VALUE)
    messages = set()
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(SealedKeyError) as caught:
            unseal(KEY, HERE, bytes(changed))
        messages.add((str(caught.value), caught.value.code, caught.value.__cause__, caught.value.__context__))
    assert messages == {("the sealed keys of this state cannot be opened with this key", "M7001", None, None)}


def test_any_shorter_value_is_refused() -> None:
    sealed = seal(KEY, HERE, VALUE)
    for length in range(len(sealed)):
        with pytest.raises(SealedKeyError):
            unseal(KEY, HERE, sealed[:length])


def test_halves_of_two_sealed_values_do_not_make_one() -> None:
    first, second = seal(KEY, HERE, VALUE), seal(KEY, HERE, Secret(b"another value of the same length"))
    for cut in (13, 61, 73):
        with pytest.raises(SealedKeyError):
            unseal(KEY, HERE, first[:cut] + second[cut:])


def test_no_nonce_and_no_wrapped_key_is_ever_repeated() -> None:
    sealed = [seal(KEY, HERE, VALUE) for _ in range(2000)]
    assert len({one[1:13] for one in sealed}) == 2000
    assert len({one[13:61] for one in sealed}) == 2000
    assert len({one[61:73] for one in sealed}) == 2000


def test_a_sealed_value_shows_nothing_of_itself_but_its_length() -> None:
    sealed = seal(KEY, HERE, VALUE)
    assert VALUE.reveal() not in sealed
    assert KEY.reveal() not in sealed
    assert len(sealed) == 1 + 12 + 48 + 12 + len(VALUE.reveal()) + 16
