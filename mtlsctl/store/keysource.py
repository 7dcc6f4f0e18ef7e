"""Where the encryption key comes from: a key file, a descriptor or a passphrase file; read once it is needed."""

from __future__ import annotations

import os
import secrets
import stat
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from mtlsctl.errors import SealedKeyError, UsageError
from mtlsctl.model.secret import Secret
from mtlsctl.store import codes
from mtlsctl.store.files import appearing, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY_BYTES: Final = 32
SCRYPT_N: Final = 2**17
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
_SCRYPT_MEMORY: Final = 192 * 1024 * 1024
"""Above 128 * N * r, which is what scrypt needs (RFC 7914 section 2)."""

_LARGEST_PASSPHRASE: Final = 4096
_ENOUGH_CHARACTERS: Final = 20
_ENOUGH_DIFFERENT_CHARACTERS: Final = 8
_ENOUGH_WORDS: Final = 5
_SHORTEST_WORD: Final = 3
_ENOUGH_UNFORESEEN: Final = 14
"""Fewer than 20, as chance makes short sequences too."""
_ENOUGH_IN_WORDS: Final = 12
_JOINTS: Final = str.maketrans("", "", "-_.,")

FAMOUS: Final = (
    "correcthorsebatterystaple",
    "thequickbrownfoxjumpsoverthelazydog",
    "thequickbrownfoxjumpedoverthelazydog",
    "tobeornottobethatisthequestion",
    "loremipsumdolorsitamet",
    "consecteturadipiscingelit",
    "maytheforcebewithyou",
    "allyourbasearebelongtous",
    "nevergonnagiveyouup",
    "nevergonnaletyoudown",
    "twinkletwinklelittlestar",
    "onetwothreefourfive",
    "sixseveneightnineten",
    "onceuponatime",
    "1qaz2wsx3edc4rfv",
    "1q2w3e4r5t6y",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertz",
    "qwerty",
    "azerty",
    "administrator",
    "passphrase",
    "password",
    "passwort",
    "passw0rd",
    "p@ssw0rd",
    "p@ssword",
    "iloveyou",
    "letmein",
    "welcome",
    "changeme",
    "changeit",
    "default",
    "sunshine",
    "princess",
    "football",
    "baseball",
    "superman",
    "monkey",
    "dragon",
    "secret",
    "master",
    "admin",
)
"""In small letters, without gaps; the longer before what it contains."""


class KeySource(Protocol):
    """Gives the encryption key when it is asked, and the same one each time."""

    @property
    def place(self) -> str:
        """Where it comes from, for people; never the key."""

    def key(self, salt: bytes) -> Secret:
        """The 32-byte key of a state with this salt; raises SealedKeyError when there is none or it is not safe."""


class KeyFile:
    """Exactly 32 random bytes in a file that only its owner may read."""

    def __init__(self, path: Path, *, keep_out: Sequence[Path] = ()) -> None:
        self.path = path
        self._keep_out = tuple(keep_out)

    @property
    def place(self) -> str:
        return str(self.path)

    def key(self, salt: bytes) -> Secret:  # noqa: ARG002  a random key needs no salt
        refuse_inside(self.path, self._keep_out)
        return _exactly_a_key(_read_private(self.path, KEY_BYTES + 1), self.place)


class KeyDescriptor:
    """Exactly 32 bytes from an inherited descriptor, which may be a pipe: read once and remembered."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._key: Secret | None = None

    @property
    def place(self) -> str:
        return f"file descriptor {self.descriptor}"

    def key(self, salt: bytes) -> Secret:  # noqa: ARG002
        if self._key is None:
            self._key = _exactly_a_key(self._read(), self.place)
        return self._key

    def _read(self) -> bytes:
        try:
            with os.fdopen(self.descriptor, "rb", closefd=False) as stream:
                return stream.read(KEY_BYTES + 1)
        except OSError as error:
            raise SealedKeyError(f"{self.place} cannot be read: {error.strerror}", code=codes.KEY_MISSING) from None


class PassphraseFile:
    """A passphrase of at least 20 characters or five words, turned into a key by scrypt (RFC 7914, N = 2^17)."""

    def __init__(self, path: Path, *, keep_out: Sequence[Path] = ()) -> None:
        self.path = path
        self._keep_out = tuple(keep_out)
        self._keys: dict[bytes, Secret] = {}

    @property
    def place(self) -> str:
        return f"the passphrase in {self.path}"

    def key(self, salt: bytes) -> Secret:
        if salt not in self._keys:
            refuse_inside(self.path, self._keep_out)
            self._keys[salt] = key_from_passphrase(self._passphrase(), salt)
        return self._keys[salt]

    def _passphrase(self) -> Secret:
        content = _read_private(self.path, _LARGEST_PASSPHRASE + 1)
        passphrase = content.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) > _LARGEST_PASSPHRASE or is_weak(passphrase):
            raise SealedKeyError(
                f"the passphrase in {self.path} is too weak to guard CA keys",
                code=codes.PASSPHRASE_WEAK,
                help="use five random words or more, or 20 characters or more; better still a key file",
            )
        return Secret(passphrase)


def is_weak(passphrase: bytes) -> bool:
    """Whether it has neither 20 characters, eight of them different, nor five different words of three letters.

    Nor does length alone help: what continues a sequence, repeats itself or is on everyone's list counts for nothing.
    """
    text = passphrase.decode("utf-8", "replace")
    words = {word for word in text.lower().split() if len(word) >= _SHORTEST_WORD}
    long = len(text.strip()) >= _ENOUGH_CHARACTERS and len(set(text)) >= _ENOUGH_DIFFERENT_CHARACTERS
    new = _unforeseen(text)
    return not ((long and new >= _ENOUGH_UNFORESEEN) or (len(words) >= _ENOUGH_WORDS and new >= _ENOUGH_IN_WORDS))


def _unforeseen(text: str) -> int:
    """How many characters are left without famous texts, steady steps (`abc`, `aaa`, `aabb`) and repetitions."""
    plain = "".join(text.lower().split()).translate(_JOINTS)
    for famous in FAMOUS:
        plain = plain.replace(famous, "")
    steps = [ord(after) - ord(before) for before, after in pairwise(plain)]
    return sum(not (_is_steady(steps[max(0, at - 2) : at]) or _is_repeated(plain, at)) for at in range(len(plain)))


def _is_repeated(text: str, at: int) -> bool:
    """Whether the three characters up to here stood before."""
    return at > 2 and text[at - 2 : at + 1] in text[:at]  # noqa: PLR2004


def _is_steady(steps: Sequence[int]) -> bool:
    return len(steps) == 2 and (all(abs(one) <= 1 for one in steps) or steps[0] == steps[1] in (-2, 2))  # noqa: PLR2004


def key_from_passphrase(passphrase: Secret, salt: bytes) -> Secret:
    """About 128 MiB and a third of a second: the price of one guess."""
    import hashlib  # noqa: PLC0415

    return Secret(
        hashlib.scrypt(
            passphrase.reveal(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=_SCRYPT_MEMORY, dklen=KEY_BYTES
        )
    )


def default_key_path(environ: Mapping[str, str], lineage: str) -> Path:
    """In the user's configuration folder, by lineage: outside every repository and every state folder."""
    configured = Path(environ.get("XDG_CONFIG_HOME", ""))
    # The specification of base directories says that a relative path is to be ignored.
    folder = configured if configured.is_absolute() else _home(environ) / ".config"
    return folder / "mtlsctl" / "keys" / f"{lineage}.key"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:
        raise UsageError(
            "there is no home folder to look for the encryption key in",
            code=codes.KEY_SOURCE,
            help="set MTLSCTL_KEY_SOURCE=file:PATH",
        ) from None


def resolve_key_source(environ: Mapping[str, str], *, lineage: str, keep_out: Sequence[Path] = ()) -> KeySource:
    """The source that the environment names, else the default file; reads nothing yet.

    `keep_out` are the folders where no key may lie (the repository, the state's). Raises UsageError when the
    environment names two sources or none that there is.
    """
    source, passphrase = environ.get("MTLSCTL_KEY_SOURCE", ""), environ.get("MTLSCTL_PASSPHRASE_FILE", "")
    if source and passphrase:
        raise UsageError("MTLSCTL_KEY_SOURCE and MTLSCTL_PASSPHRASE_FILE are both set; set one", code=codes.KEY_SOURCE)
    if passphrase:
        return PassphraseFile(Path(passphrase), keep_out=keep_out)
    if not source:
        return KeyFile(default_key_path(environ, lineage), keep_out=keep_out)
    kind, _, place = source.partition(":")
    if kind == "file" and place:
        return KeyFile(Path(place), keep_out=keep_out)
    if kind == "fd" and place.isascii() and place.isdigit() and len(place) < 10:  # noqa: PLR2004  no int overflow
        return KeyDescriptor(int(place))
    # The value is not shown: somebody may have put the key itself there.
    raise UsageError("MTLSCTL_KEY_SOURCE is neither file:PATH nor fd:NUMBER", code=codes.KEY_SOURCE)


def create_key_file(path: Path, *, keep_out: Sequence[Path] = ()) -> None:
    """Make a new random key, 0600, whole and on the disk or not there; raises SealedKeyError when the name is taken."""
    refuse_inside(path, keep_out)
    try:
        make_private_folder(path.parent)
        with appearing(path) as unfinished:
            unfinished.write_bytes(secrets.token_bytes(KEY_BYTES))
    except FileExistsError:
        raise SealedKeyError(
            f"{path} exists and is not replaced",
            code=codes.KEY_EXISTS,
            help="a state may depend on it: keep it, or move it away yourself",
        ) from None
    except OSError as error:
        raise SealedKeyError(f"{path} cannot be made: {error.strerror}", code=codes.KEY_MISSING) from None


def refuse_inside(path: Path, keep_out: Sequence[Path]) -> None:
    """Raise SealedKeyError when a key lies, symlinks followed, where the repository or the state is copied from."""
    place = path.resolve()
    for folder in keep_out:
        if place.is_relative_to(folder.resolve()):
            raise SealedKeyError(
                f"the encryption key {path} lies inside {folder}",
                code=codes.KEY_INSIDE,
                help="who copies that folder would have the keys too: move the key outside the repository "
                "and the state's folder, and set MTLSCTL_KEY_SOURCE=file:PATH",
            )


def _read_private(path: Path, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SealedKeyError(
            f"there is no encryption key to read at {path}: {error.strerror}",
            code=codes.KEY_MISSING,
            help="copy the key there, or name its place with MTLSCTL_KEY_SOURCE=file:PATH or MTLSCTL_PASSPHRASE_FILE",
        ) from None
    try:
        _refuse_readable_by_others(path, os.fstat(descriptor))
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def _refuse_readable_by_others(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SealedKeyError(
            f"{path} is not a file", code=codes.KEY_EXPOSED, help="a pipe enters as MTLSCTL_KEY_SOURCE=fd:NUMBER"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SealedKeyError(
            f"{path} can be read by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})",
            code=codes.KEY_EXPOSED,
            help=f"chmod 600 {path}",
        )


def _exactly_a_key(content: bytes, place: str) -> Secret:
    if len(content) != KEY_BYTES:
        raise SealedKeyError(f"{place} does not hold a key of exactly {KEY_BYTES} bytes", code=codes.KEY_MISSING)
    return Secret(content)
