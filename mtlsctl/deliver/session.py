"""One conversation with a host: our script goes there, then requests and answers, each with a deadline and a bound.

What a host says is data from a stranger. An answer is taken only in the shape that the request has, up to the bytes
that it may have; whatever else comes ends the conversation.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from mtlsctl.deliver.process import shown_lines
from mtlsctl.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.deliver.channel import Channel, Dialler

SESSION_LIMIT = 64 * 1024 * 1024
"""Bytes that a host may say in one conversation."""

ANSWER_LIMIT = 2 * 1024 * 1024
"""Bytes of one answer, where the request does not say otherwise: a file of 1 MiB fits, in base64 too."""

MESSAGE_LIMIT = 64 * 1024
"""Bytes of the message of a refusal."""

GREETING_SECONDS = 30.0
REQUEST_SECONDS = 30.0
PROTOCOL = b"1"

_NOISE_LIMIT = 64 * 1024
"""Bytes that a login shell may say before our script does."""
_UNREAD_LIMIT = 16 * 1024
"""Bytes of requests under way at once: they fit into the pipe there, so no side waits for the other to read."""
_LINE_LIMIT = 64
_FRAME_LIMIT = 16
"""Frames of one answer; no verb gives more than a handful, and empty ones would count for nothing else."""
_CHUNK = 64 * 1024
_REFUSALS = frozenset(
    {
        "M4101",
        "M4102",
        "M4103",
        "M4116",
        "M4117",
        "M4111",
        "M4202",
        "M4203",
        "M4205",
        "M4308",
        "M4309",
        "M4312",
        "M4313",
        "M4315",
    }  # what host.sh says
)
_FRAME = re.compile(rb"(?:(?P<data>D)|E (?P<code>M[0-9]{4})) (?P<size>0|[1-9][0-9]{0,8})|(?P<done>O)")
_USER_NUMBER = re.compile(rb"[0-9]{1,10}")
_MISSING = re.compile(rb"(?:^|[ :])(sh|head|sudo): (?:command )?not found", re.MULTILINE)
_ADVICE = {
    "No space left on device": "free some space there, then run the same command again; nothing was switched",
    "Disk quota exceeded": "free some space there, then run the same command again; nothing was switched",
    "Permission denied": "log in as root, or say `become: true` for this host and let its user use sudo",
    "Operation not permitted": "log in as root, or say `become: true` for this host and let its user use sudo",
    "the one here": "set both clocks (timedatectl, chronyc), then run the same command again",
    "Read-only file system": "make the file system of that folder writable there, then run the same command again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One verb of host.sh with its arguments (no newline in any) and the bytes that go with it, which may be secret."""

    verb: str
    arguments: tuple[str, ...] = ()
    payload: bytes = field(default=b"", repr=False)
    seconds: float = REQUEST_SECONDS
    limit: int = ANSWER_LIMIT

    def encode(self) -> bytes:
        """As host.sh reads it; raises DeliveryError M4102 for an argument that does not fit on its line."""
        lines = [f"{self.verb} {len(self.arguments)} {len(self.payload)}", *self.arguments]
        for one in lines:
            if not one.isprintable() or not one.isascii():
                raise DeliveryError(f"{one!r} cannot be said to a host", code="M4102")
        return "".join(f"{one}\n" for one in lines).encode("ascii") + self.payload


Answer = tuple[bytes, ...]
"""The data frames of an answer that ended well."""


@cache
def script() -> bytes:
    """What runs on the host, without its comments: they need not travel."""
    text = files("mtlsctl.deliver").joinpath("host.sh").read_text("ascii")
    return "".join(f"{line}\n" for line in text.splitlines() if not line.lstrip().startswith("#")).encode("ascii")


def command(*, become: bool, shell: str = "sh") -> str:
    """What the login shell is asked to run: nothing in it depends on an inventory."""
    program = f"{shell} -c 'eval \"$(head -c {len(script())})\"'"
    return f"exec sudo -n -- {program}" if become else f"exec {program}"


class Session:
    """Requests to one host, one after the other or several on their way at once. Not for two threads."""

    def __init__(self, channel: Channel, host: str) -> None:
        """`host` is what messages call it."""
        self._channel: Channel | None = channel
        self._host = host
        self._unread = bytearray()
        self._said = 0
        self.uid = -1

    # the way in

    def greet(self, *, deadline: float, become: bool, keeps_keys: bool) -> None:
        """Send the script and hear from it; what the login shell says before is passed over.

        With `keeps_keys` the script gives away no key and nothing that holds one, whatever it is asked.

        Raises DeliveryError: M4307 when sudo refuses, M4308 when a tool is missing there, M4309 when it is not our
        script that answers, M4301 and M4302 as a channel does.
        """
        nonce = secrets.token_hex(16)
        hello = Request(verb="hello", arguments=(nonce, "keep" if keeps_keys else "give"))
        channel = self._open()
        try:
            try:
                channel.send(script() + hello.encode(), deadline=deadline)
            except DeliveryError as error:
                if error.code != "M4301":
                    raise
                # The program there ended before it read us; what it complained about says more than a broken pipe.
                raise self._not_ours(b"", become=become) from error
            self._await_greeting(f"mtlsctl {nonce}\n".encode("ascii"), deadline, become=become)
            self.uid = self._greeted(self._heard(hello, deadline))
        except BaseException:
            self.close()
            raise

    def _await_greeting(self, greeting: bytes, deadline: float, *, become: bool) -> None:
        while (at := self._unread.find(greeting)) < 0:
            if len(self._unread) > _NOISE_LIMIT or not self._fill(deadline):
                raise self._not_ours(bytes(self._unread), become=become)
        del self._unread[: at + len(greeting)]

    def _greeted(self, answer: Answer | DeliveryError) -> int:
        if isinstance(answer, DeliveryError):
            raise answer
        words = b" ".join(answer).split()
        if len(words) != 2 or words[0] != PROTOCOL or _USER_NUMBER.fullmatch(words[1]) is None:  # noqa: PLR2004
            raise self._nonsense("it greets in a way that we do not know")
        return int(words[1])

    def _not_ours(self, noise: bytes, *, become: bool) -> DeliveryError:
        said = self._open().complaints()
        notes = shown_lines(noise + b"\n" + said)
        if found := _MISSING.search(said):
            return self._error(f"{found[1].decode()} is not there", "M4308", notes=notes)
        if become and b"sudo" in said:
            return self._error(
                "sudo does not let this user become root without a password",
                "M4307",
                notes=notes,
                help="allow it there in a file of /etc/sudoers.d: `USER ALL=(root) NOPASSWD: ALL`",
            )
        return self._error(
            "what answers is not our script",
            "M4309",
            notes=notes,
            help="the login shell must run commands: `ssh HOST 'sh -c true'` says nothing and ends with 0",
        )

    # requests

    def ask(self, request: Request) -> Answer:
        """Raises DeliveryError: what host.sh refuses, by its code; M4301, M4302, M4309 and M4310 end the session."""
        (answer,) = self.ask_all([request])
        if isinstance(answer, DeliveryError):
            raise answer
        return answer

    def ask_all(self, requests: Sequence[Request]) -> list[Answer | DeliveryError]:
        """Several requests in one round trip; what the host refuses takes the place of its answer.

        Raises what ends the session: then it is not known which of them were done.
        """
        waiting: deque[tuple[Request, float, int]] = deque()
        answers: list[Answer | DeliveryError] = []
        encoded = [(request, request.encode()) for request in requests]
        try:
            for request, data in encoded:
                while waiting and sum(size for _, _, size in waiting) + len(data) > _UNREAD_LIMIT:
                    answers.append(self._heard(*waiting.popleft()[:2]))
                # Each is done after those before it, so each has their time too.
                deadline = max([time.monotonic(), *(one for _, one, _ in waiting)]) + request.seconds
                self._open().send(data, deadline=deadline)
                waiting.append((request, deadline, len(data)))
            answers.extend(self._heard(request, deadline) for request, deadline, _ in waiting)
        except BaseException:
            self.close()
            raise
        return answers

    def _heard(self, request: Request, deadline: float) -> Answer | DeliveryError:
        try:
            return self._answer(request, deadline)
        except _Refused as refused:
            return self._refusal(refused)

    def _answer(self, request: Request, deadline: float) -> Answer:
        frames: list[bytes] = []
        left = request.limit
        while True:
            found = _FRAME.fullmatch(self._line(deadline))
            if found is None:
                raise self._nonsense(f"its answer to `{request.verb}` is not one")
            if found["done"]:
                return tuple(frames)
            size = int(found["size"])
            if len(frames) == _FRAME_LIMIT or size > (left if found["data"] else MESSAGE_LIMIT):
                raise self._error(f"it said too much in answer to `{request.verb}`", "M4310")
            data = self._exactly(size, deadline)
            if found["code"]:
                raise _Refused(found["code"].decode(), data)
            left -= size
            frames.append(data)

    def _refusal(self, refused: _Refused) -> DeliveryError:
        if refused.code not in _REFUSALS:
            raise self._nonsense(f"it refuses with {refused.code}")
        first, *rest = shown_lines(refused.message, most=1_000) or ("no reason given",)
        if refused.code == "M4111":
            return DeliveryError(
                f"{self._host} belongs to another estate; nothing was changed",
                code="M4111",
                notes=(f"its lineage is {first}",),
                help="give this estate hosts of its own",
            )
        if refused.code == "M4312":
            names = ("lineage", "holder", "since")
            notes = tuple(f"{name}: {said}" for name, said in zip(names, (first, *rest), strict=False))
            return self._error("another controller works there", "M4312", notes=notes, help="try again when it is done")
        helps = [advice for reason, advice in _ADVICE.items() if first.endswith(reason)]
        return self._error(first, refused.code, notes=tuple(rest[-20:]), help=next(iter(helps), None))

    # bytes

    def _line(self, deadline: float) -> bytes:
        while (at := self._unread.find(b"\n", 0, _LINE_LIMIT)) < 0:
            if len(self._unread) >= _LINE_LIMIT:
                raise self._nonsense("it does not speak in our frames")
            self._more(deadline)
        line = bytes(self._unread[:at])
        del self._unread[: at + 1]
        return line

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self._unread) < size:
            self._more(deadline)
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def _more(self, deadline: float) -> None:
        if not self._fill(deadline):
            raise DeliveryError(
                f"{self._host}: the connection was lost",
                code="M4301",
                notes=shown_lines(self._open().complaints()),
                help="run the same command again: what was under way there is settled by looking",
            )

    def _fill(self, deadline: float) -> bool:
        data = self._open().receive(_CHUNK, deadline=deadline)
        self._said += len(data)
        if self._said > SESSION_LIMIT:
            raise self._error(f"it said more than {SESSION_LIMIT} bytes", "M4310")
        self._unread += data
        return bool(data)

    # the way out

    def close(self) -> None:
        """End the conversation; the lock there, if it was taken, is free once the script has ended."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def _open(self) -> Channel:
        if self._channel is None:
            raise self._error("the connection was lost", "M4301", help="run the same command again")
        return self._channel

    def _nonsense(self, why: str) -> DeliveryError:
        return self._error(why, "M4309", notes=shown_lines(bytes(self._unread[:2_000])))

    def _error(self, message: str, code: str, *, notes: tuple[str, ...] = (), help: str | None = None) -> DeliveryError:
        return DeliveryError(f"{self._host}: {message}", code=code, notes=notes, help=help)


class _Refused(Exception):
    """An E frame."""

    def __init__(self, code: str, message: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


def open_session(dial: Dialler, host: str, *, become: bool, keeps_keys: bool = True, shell: str = "sh") -> Session:
    """Dial, send the script, and hear from it; raises DeliveryError as the dialler and `Session.greet` do."""
    session = Session(dial(command(become=become, shell=shell)), host)
    session.greet(deadline=time.monotonic() + GREETING_SECONDS, become=become, keeps_keys=keeps_keys)
    return session
