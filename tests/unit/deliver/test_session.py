from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import session as module
from mtlsctl.deliver.session import Request, Session, command, open_session, script
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 5.0


class Script:
    """A host that says what it is told to, in the pieces given, and then ends or hangs."""

    def __init__(self, *said: bytes | Callable[[bytes], bytes], complaints: bytes = b"", hangs: bool = False) -> None:
        self.said = deque(said)
        self.heard = bytearray()
        self.closed = 0
        self._complaints = complaints
        self._hangs = hangs

    def send(self, data: bytes, *, deadline: float) -> None:
        self.heard += data

    def receive(self, limit: int, *, deadline: float) -> bytes:
        if not self.said:
            if self._hangs:
                raise DeliveryError("the host did not answer in time", code="M4302")
            return b""
        data = self.said.popleft()
        if callable(data):
            data = data(bytes(self.heard))
        if len(data) > limit:
            self.said.appendleft(data[limit:])
        return data[:limit]

    def complaints(self) -> bytes:
        return self._complaints

    def close(self) -> None:
        self.closed += 1


def greeting(heard: bytes) -> bytes:
    found = re.search(rb"hello 2 0\n([0-9a-f]{32})\nkeep\n", heard)
    assert found
    return b"mtlsctl " + found[1] + b"\nD 3\n1 0O\n"


def opened(*said: bytes, hangs: bool = False) -> tuple[Session, Script]:
    channel = Script(greeting, *said, hangs=hangs)
    return open_session(lambda _: channel, "web1", become=False), channel


def code_of(session: Session, request: Request) -> tuple[str, str]:
    with pytest.raises(DeliveryError) as found:
        session.ask(request)
    return found.value.code, found.value.message


ASK = Request(verb="has_key", arguments=("mail", "0" * 64))


def test_an_answer_comes_in_whatever_pieces() -> None:
    whole = b"D 3\nyesD 0\nO\n"
    session, _ = opened(*(whole[at : at + 1] for at in range(len(whole))))
    assert (b"yes", b"") == session.ask(ASK)


def test_what_a_login_shell_says_before_is_passed_over() -> None:
    noise = b"Welcome!\r\nD 99\nmtlsctl 0\nno newline here"
    channel = Script(noise, greeting, b"O\n")
    assert () == open_session(lambda _: channel, "web1", become=False).ask(ASK)


def test_a_request_is_lines_and_bytes() -> None:
    session, channel = opened(b"O\n")
    session.ask(Request(verb="put_key", arguments=("mail", "0" * 64), payload=b"\0\n\xff"))
    assert channel.heard.endswith(b"put_key 2 3\nmail\n" + b"0" * 64 + b"\n\0\n\xff")
    assert channel.heard.startswith(script())


@pytest.mark.parametrize("bad", ["a\nb", "a\0", "\x1b[2J", "ä", "a\u202e"])
def test_an_argument_that_is_not_one_line_of_ascii_is_not_sent(bad: str) -> None:
    session, channel = opened()
    before = bytes(channel.heard)
    assert "M4102" == code_of(session, Request(verb="claim", arguments=(bad,)))[0]
    assert before == bytes(channel.heard)
    assert session.is_open


def test_a_refusal_is_raised_with_its_code_and_the_conversation_goes_on() -> None:
    session, channel = opened(b"E M4102 9\nin the wayO\n")
    channel.said.clear()
    channel.said.extend([b"E M4102 10\nin the wayD 2\nnoO\n"])
    assert ("M4102", "web1: in the way") == code_of(session, ASK)
    assert (b"no",) == session.ask(ASK)


def test_what_a_host_says_is_escaped_and_cut() -> None:
    message = b"cannot do it: \x1b]0;owned\x07 \xff\n" + b"".join(b"line %d\x1b[2J\n" % n for n in range(50))
    session, _ = opened(b"E M4101 %d\n%s" % (len(message), message))
    with pytest.raises(DeliveryError) as found:
        session.ask(ASK)
    text = "\n".join((found.value.message, *found.value.notes))
    assert "\x1b" not in text
    assert text.isascii()
    assert 20 == len(found.value.notes)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "M4301"),
        (b"D 3\nye", "M4301"),
        (b"D 5", "M4301"),
        (b"X\n", "M4309"),
        (b"D -1\n", "M4309"),
        (b"D 03\nyes", "M4309"),
        (b"D 1 \nx", "M4309"),
        (b"O \n", "M4309"),
        (b"E 0 4101\n", "M4309"),
        (b"E M0001 2\nno", "M4309"),
        (b"\x00" * 200, "M4309"),
        (b"D 999999999\n", "M4310"),
        (b"E M4101 65537\n", "M4310"),
        (b"D 1048576\n" + b"x" * 1048576 + b"D 1048576\n" + b"x" * 1048576 + b"D 1\nx", "M4310"),
    ],
)
def test_whatever_is_not_an_answer_ends_the_conversation(said: bytes, code: str) -> None:
    session, channel = opened(said)
    assert code == code_of(session, ASK)[0]
    assert (False, 1) == (session.is_open, channel.closed)
    assert "M4301" == code_of(session, ASK)[0], "and it is not taken up again"


def test_an_answer_that_does_not_come_ends_the_conversation() -> None:
    session, channel = opened(b"D 3\n", hangs=True)
    assert ("M4302", 1) == (code_of(session, ASK)[0], channel.closed)


def test_a_host_that_never_stops_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSION_LIMIT", 200_000)
    session, _ = opened(*[b"D 60000\n" + b"x" * 60_000 + b"O\n"] * 5)
    for _ in range(3):
        session.ask(ASK)
    assert "M4310" == code_of(session, ASK)[0]


@pytest.mark.parametrize(
    ("become", "complaints", "code"),
    [
        (True, b"sudo: a password is required\n", "M4307"),
        (True, b"sudo: sorry, you must have a tty to run sudo\n", "M4307"),
        (True, b"Sorry, user deploy is not allowed to execute '/bin/sh -c' as root on web1.\nsudo: x\n", "M4307"),
        (True, b"sh: 1: exec: sudo: not found\n", "M4308"),
        (True, b"bash: line 1: exec: sudo: not found\n", "M4308"),
        (False, b"sh: 1: head: not found\n", "M4308"),
        (False, b"This account is currently not available.\n", "M4309"),
        (False, b"", "M4309"),
    ],
)
def test_a_host_where_our_script_does_not_run_says_why(become: bool, complaints: bytes, code: str) -> None:  # noqa: FBT001
    channel = Script(complaints=complaints)
    with pytest.raises(DeliveryError) as found:
        open_session(lambda _: channel, "web1", become=become)
    assert (code, 1) == (found.value.code, channel.closed)
    assert code == "M4308" or complaints.decode().strip() in "\n".join(found.value.notes)


def test_noise_without_end_is_not_listened_to() -> None:
    channel = Script(*[b"y\n" * 20_000] * 10)
    with pytest.raises(DeliveryError) as found:
        open_session(lambda _: channel, "web1", become=False)
    assert "M4309" == found.value.code
    assert len(found.value.notes) <= 20


def test_missing_tools_are_named() -> None:
    def answer(heard: bytes) -> bytes:
        refusal = b"missing there: flock openssl"
        return greeting(heard).partition(b"D ")[0] + b"E M4308 %d\n%s" % (len(refusal), refusal)

    channel = Script(answer)
    with pytest.raises(DeliveryError, match="flock") as found:
        open_session(lambda _: channel, "web1", become=False)
    assert ("M4308", 1) == (found.value.code, channel.closed)


def test_several_requests_cost_one_round_trip_and_a_refusal_takes_the_place_of_an_answer() -> None:
    session, _ = opened(b"D 3\nyesO\nE M4102 2\nnoD 2\nnoO\n")
    first, second, third = session.ask_all([ASK] * 3)
    assert ((b"yes",), (b"no",)) == (first, third)
    assert isinstance(second, DeliveryError)


def test_never_more_is_under_way_than_a_pipe_holds() -> None:
    """Else both sides could wait for the other to read."""
    session, channel = opened(*[b"D 2\nnoO\n"] * 1000)
    most = 0
    send = channel.send

    def counted(data: bytes, *, deadline: float) -> None:
        nonlocal most
        send(data, deadline=deadline)
        asked = channel.heard.count(b"has_key 2 0")
        most = max(most, asked - (1000 - len(channel.said)))

    channel.send = counted  # type: ignore[method-assign]
    assert 1000 == len(session.ask_all([ASK] * 1000))
    assert most * len(ASK.encode()) <= 16 * 1024 + 200


def test_the_command_is_constant_and_names_the_length_of_the_script() -> None:
    assert f"exec sh -c 'eval \"$(head -c {len(script())})\"'" == command(become=False)
    assert command(become=True).startswith("exec sudo -n -- sh -c ")


def test_the_greeting_has_a_deadline() -> None:
    channel = Script(hangs=True)
    session = Session(channel, "web1")
    with pytest.raises(DeliveryError) as found:
        session.greet(deadline=time.monotonic() + SOON, become=False, keeps_keys=True)
    assert ("M4302", 1) == (found.value.code, channel.closed)


@pytest.mark.parametrize("number", [b"9" * 5_000, b"9" * 11, b"-1"])
def test_a_greeting_with_a_number_that_is_none_is_not_taken(number: bytes) -> None:
    def answer(heard: bytes) -> bytes:
        said = greeting(heard).partition(b"D ")[0]
        content = b"1 " + number
        return said + b"D %d\n%sO\n" % (len(content), content)

    with pytest.raises(DeliveryError) as found:
        open_session(lambda _: Script(answer), "web1", become=False)
    assert "M4309" == found.value.code


def test_frames_without_end_and_without_content_are_not_gathered() -> None:
    session, channel = opened(b"D 0\n" * 17)
    assert "M4310" == code_of(session, ASK)[0]
    assert channel.closed
