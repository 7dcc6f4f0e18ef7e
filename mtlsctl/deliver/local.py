"""A host that is a folder of this machine."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, assert_never

from mtlsctl.deliver import apache, tree
from mtlsctl.deliver.layout import (
    LINEAGE_FILE,
    CurrentPointer,
    FilePointer,
    Observed,
    StagedFile,
    combined,
    key_file,
    partial_folder,
    release_folder,
    service_folder,
)
from mtlsctl.deliver.process import (
    Running,
    find_program,
    hang_up_master,
    is_only_bind_refused,
    parse_pid,
    raise_unless_good,
    run_program,
    shown_lines,
)
from mtlsctl.errors import DeliveryError
from mtlsctl.failpoints import reach
from mtlsctl.model.files import CERTIFICATE_FILE, KEY_FILE, RELEASE_NAME, SECRET_MODE
from mtlsctl.model.identifiers import LABEL
from mtlsctl.model.release import FileFact, HeldFile
from mtlsctl.model.runtime import Check, Reload
from mtlsctl.model.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlsctl.deliver.layout import Pointer, StagedRelease
    from mtlsctl.deliver.process import Ran
    from mtlsctl.model.topology import DirectoryHost

_SPKI = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(rf"releases/{RELEASE_NAME.pattern}")
_NODE_MODULE = "mtls.cjs"

_NGINX_TEST = """\
daemon off;
pid "{folder}/nginx.pid";
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    include "{pointer}";
}}
"""


class LocalTransport:
    """A directory host; see `Transport` for what holds."""

    def __init__(
        self, host: DirectoryHost, *, check_deadline_seconds: float = 10.0, reload_deadline_seconds: float = 10.0
    ) -> None:
        self._host = host
        self._tree = tree.Tree(host.directory)
        self._check_deadline = check_deadline_seconds
        self._reload_deadline = reload_deadline_seconds

    @property
    def keeper(self) -> None:
        """See `Transport.keeper`: whoever writes a folder can read it."""
        return

    def lock(self, lineage: str) -> None:
        """See `Transport.lock`; the lock of the state does, since a folder belongs to one."""
        del lineage

    def close(self) -> None:
        """See `Transport.close`."""

    def reconnect(self) -> None:
        """See `Transport.reconnect`; a folder is always there."""

    def shown(self, path: str) -> str:
        """See `Transport.shown`."""
        return self._tree.shown(path)

    def claim(self, lineage: str) -> None:
        """See `Transport.claim`."""
        path = LINEAGE_FILE
        with self._tree.step("claim", path), self._tree.folder(path.parent, create=True) as folder:
            with suppress(FileExistsError):
                tree.write_new(folder, path.name, f"{lineage}\n".encode(), 0o644)
                tree.sync(folder)
            owner = tree.read_file(folder, path.name)[0].decode(errors="replace").strip()
        if owner != lineage:
            raise DeliveryError(
                f"{self.shown(str(path.parent))} belongs to another estate; nothing was changed",
                code="M4111",
                notes=(f"its lineage is {shown_lines(owner.encode())[0] if owner else 'not given'}",),
                help="give this host a folder of its own",
            )

    # keys

    def put_key(self, service: str, spki_sha256: str, key: Secret) -> None:
        """See `Transport.put_key`."""
        path = _key_path(service, spki_sha256)
        if self.has_key(service, spki_sha256):
            return
        with self._tree.step("write the key", path), self._tree.folder(path.parent, create=True) as folder:
            partial = path.name + ".partial"
            tree.remove_file(folder, partial)
            tree.write_new(folder, partial, key.reveal(), SECRET_MODE)
            os.rename(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            tree.sync(folder)

    def has_key(self, service: str, spki_sha256: str) -> bool:
        """See `Transport.has_key`."""
        path = _key_path(service, spki_sha256)
        with (
            self._tree.step("look for the key", path),
            suppress(FileNotFoundError),
            self._tree.folder(path.parent) as folder,
        ):
            return tree.kind_of(folder, path.name) == stat.S_IFREG
        return False

    def expect_key(self, service: str, spki_sha256: str) -> bool:
        """See `Transport.expect_key`."""
        path = _key_path(service, spki_sha256)
        with self._tree.step("make the folder of", path), self._tree.folder(path.parent, create=True):
            return self.has_key(service, spki_sha256)

    def read_key(self, service: str, spki_sha256: str) -> Secret:
        """See `Transport.read_key`."""
        path = _key_path(service, spki_sha256)
        with (
            self._tree.step("read the key", path),
            suppress(FileNotFoundError),
            self._tree.folder(path.parent) as folder,
        ):
            return Secret(tree.read_file(folder, path.name)[0])
        raise self._key_gone(path)

    def borrow_key(self, path: str) -> HeldFile:
        """See `Transport.borrow_key`."""
        _file_path(path)
        place = self._tree.shown(path)
        try:
            return HeldFile.of(*tree.read_beneath(self._host.directory, place))
        except FileNotFoundError:
            raise DeliveryError(
                f"there is no key at {place}",
                code="M4116",
                help="its owner puts it there; or correct `key_path` in the inventory",
            ) from None
        except OSError as error:
            raise DeliveryError(
                f"the key at {place} cannot be read: {error.strerror or error}",
                code="M4117",
                help="it is compared with the certificate before a server is told to load both",
            ) from None

    def _key_gone(self, path: PurePosixPath) -> DeliveryError:
        return DeliveryError(
            f"the key of this release is gone: {self._tree.shown(path)}",
            code="M4103",
            help="plan again: the certificate is issued anew for a new key",
        )

    def delete_keys_except(self, service: str, keep: Sequence[str]) -> None:
        """See `Transport.delete_keys_except`."""
        path = _service_path(service) / "keys"
        kept = {f"{spki}.key" for spki in keep}
        with self._tree.step("delete keys in", path), suppress(FileNotFoundError), self._tree.folder(path) as folder:
            for name in set(tree.names_in(folder)) - kept:
                tree.remove_file(folder, name)
            tree.sync(folder)

    # releases

    def carry(self, service: str, to: str, *, release: str | None, keys: Sequence[str]) -> None:
        """See `Transport.carry`; everything is linked, so it is not there twice."""
        for spki_sha256 in keys:
            self._carry_key(_key_path(service, spki_sha256), _key_path(to, spki_sha256))
        if release is not None and not self.has_release(to, release):
            self._carry_release(_release_path(service, release), _release_path(to, release))

    def _carry_key(self, old: PurePosixPath, new: PurePosixPath) -> None:
        with (
            self._tree.step("link the key", new),
            suppress(FileNotFoundError),
            self._tree.folder(old.parent) as there,
            self._tree.folder(new.parent, create=True) as here,
        ):
            with suppress(FileExistsError):
                tree.link_or_copy(there, old.name, here, new.name)
            tree.sync(here)

    def _carry_release(self, old: PurePosixPath, new: PurePosixPath) -> None:
        partial = new.name + ".partial"
        if not self.has_release(old.parent.parent.name, old.name):
            raise DeliveryError(f"{self._tree.shown(old)} is gone", code="M4103", help="plan again")
        with (
            self._tree.step("link the release in", new),
            self._tree.folder(old) as there,
            self._tree.folder(new.parent, create=True) as releases,
        ):
            tree.remove_below(releases, partial)
            tree.link_below(there, releases, partial)
            reach("carry.linked")
            os.rename(partial, new.name, src_dir_fd=releases, dst_dir_fd=releases)
            tree.sync(releases)

    def stage(self, release: StagedRelease) -> None:
        """See `Transport.stage`."""
        self._link_beside(release)
        if self.has_release(release.service, release.release):
            if self._holds(release):
                return
            self.delete_releases(release.service, [release.release])
        path = PurePosixPath(partial_folder(release.service, release.release))
        with self._tree.step("stage the release in", path), self._tree.folder(path.parent, create=True) as releases:
            tree.remove_below(releases, path.name)
            try:
                self._fill(releases, path, release)
            except BaseException:
                with suppress(OSError):
                    tree.remove_below(releases, path.name)
                raise
            os.rename(path.name, release.release, src_dir_fd=releases, dst_dir_fd=releases)
            tree.sync(releases)
            reach("stage.renamed")

    def _link_beside(self, release: StagedRelease) -> None:
        """Links that lead nowhere until `current` is there; they are the same for every release."""
        path = _service_path(release.service)
        for name in release.links:
            target = f"current/{name}"
            with self._tree.step("link", path / name), self._tree.folder(path, create=True) as folder:
                if tree.kind_of(folder, name) is None:
                    os.symlink(target, name, dir_fd=folder)
                    tree.sync(folder)
                elif tree.kind_of(folder, name) != stat.S_IFLNK or os.readlink(name, dir_fd=folder) != target:
                    raise DeliveryError(
                        f"{self._tree.shown(path / name)} is not a symlink to {target}; it was left alone", code="M4102"
                    )

    def _holds(self, release: StagedRelease) -> bool:
        found = self.read_release(release.service, release.release)
        key = found.pop(KEY_FILE, None)
        files = {file.path: HeldFile.of(file.content, file.mode) for file in release.files}
        if key is None or release.key_spki_sha256 is None:
            return key is None and release.key_spki_sha256 is None and found == files
        made = {one.path: HeldFile.of(one.content, one.mode) for one in _combined(release, key.read())}
        return found == {**files, **made}

    def _fill(self, releases: int, path: PurePosixPath, release: StagedRelease) -> None:
        tree.make_folder(releases, path.name, 0o700)
        reach("stage.partial")
        with tree.open_below(releases, path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
            for file in release.files:
                _write_staged(folder, file)
            self._link_key(folder, release)
            if release.combined:
                for file in _combined(release, tree.read_file(folder, KEY_FILE)[0]):
                    _write_staged(folder, file)
            reach("stage.written")
            tree.sync_below(folder)
        tree.set_folder_mode(releases, path.name, 0o750)
        reach("stage.synced")

    def _link_key(self, folder: int, release: StagedRelease) -> None:
        if release.key_spki_sha256 is None:
            return
        path = _key_path(release.service, release.key_spki_sha256)
        try:
            with self._tree.folder(path.parent) as keys:
                tree.link_or_copy(keys, path.name, folder, KEY_FILE)
        except FileNotFoundError:
            raise self._key_gone(path) from None

    def stage_and_read(self, releases: Sequence[StagedRelease]) -> list[dict[str, HeldFile]]:
        """See `Transport.stage_and_read`."""
        for one in releases:
            self.stage(one)
        return [self.read_release(one.service, one.release) for one in releases]

    def read_release(self, service: str, release: str) -> dict[str, HeldFile]:
        """See `Transport.read_release`."""
        path = _release_path(service, release)
        with self._tree.step("read", path), self._tree.folder(path) as folder:
            return {name: HeldFile.of(*found) for name, found in tree.read_below(folder).items()}

    def observe(
        self,
        *,
        pointers: Sequence[str],
        releases: Sequence[tuple[str, str]],
        keys: Sequence[tuple[str, str]],
        lock_for: str | None = None,
    ) -> Observed:
        """See `Transport.observe`."""
        if lock_for is not None:
            self.lock(lock_for)
        return Observed(
            pointers={path: self.read_pointer(path) for path in pointers},
            releases={one: self._facts(*one) if self.has_release(*one) else None for one in releases},
            keys={one: self.has_key(*one) for one in keys},
        )

    def _facts(self, service: str, release: str) -> tuple[FileFact, ...]:
        found = self.read_release(service, release)
        return tuple(FileFact(path, held.sha256, held.mode) for path, held in sorted(found.items()))

    def has_release(self, service: str, release: str) -> bool:
        """See `Transport.has_release`."""
        path = _release_path(service, release)
        with self._tree.step("look for", path), suppress(FileNotFoundError), self._tree.folder(path):
            return True
        return False

    def releases(self, service: str) -> Sequence[str]:
        """See `Transport.releases`; the age is that of the folder's last new entry."""
        path = _service_path(service) / "releases"
        with self._tree.step("list", path), suppress(FileNotFoundError), self._tree.folder(path) as folder:
            names = [name for name in tree.names_in(folder) if RELEASE_NAME.fullmatch(name)]
            ages = {n: os.stat(n, dir_fd=folder, follow_symlinks=False).st_mtime_ns for n in names}
            return tuple(sorted(names, key=lambda name: (ages[name], name)))
        return ()

    def delete_releases(self, service: str, releases: Sequence[str]) -> None:
        """See `Transport.delete_releases`."""
        paths = [_release_path(service, release) for release in releases]
        path = _service_path(service) / "releases"
        with (
            self._tree.step("delete releases in", path),
            suppress(FileNotFoundError),
            self._tree.folder(path) as folder,
        ):
            for release in paths:
                _rename_away(folder, release.name, release.name + ".partial")
            tree.sync(folder)
            for name in tree.names_in(folder):
                if name.endswith(".partial"):
                    tree.remove_below(folder, name)
            tree.sync(folder)

    def delete_service(self, service: str) -> None:
        """See `Transport.delete_service`."""
        path = _service_path(service)
        # No service's name holds a dot, so nothing of another service can be in the way.
        names = (service, service + ".deleted")
        with self._tree.step("delete", path), suppress(FileNotFoundError), self._tree.folder(path.parent) as folder:
            if all(tree.kind_of(folder, name) is None for name in names):
                return
            _rename_away(folder, service, service + ".deleted")
            tree.sync(folder)
            tree.remove_below(folder, service + ".deleted")
            tree.sync(folder)

    # the pointer

    def read_pointer(self, path: str) -> Pointer | None:
        """See `Transport.read_pointer`."""
        pure = _file_path(path)
        with self._tree.step("read", path), suppress(FileNotFoundError), self._tree.folder(pure.parent) as folder:
            if tree.kind_of(folder, pure.name) == stat.S_IFLNK:
                return CurrentPointer(path=path, target=os.readlink(pure.name, dir_fd=folder))
            content, mode = tree.read_file(folder, pure.name)
            return FilePointer(path=path, content=content, mode=mode)
        return None

    def switch(self, pointer: Pointer) -> None:
        """See `Transport.switch`."""
        path = _file_path(pointer.path)
        with self._tree.step("switch", path), self._tree.folder(path.parent, create=True) as folder:
            self._check_replaceable(folder, path, pointer)
            # Not `.conf`: a server that includes `*.conf` must never read a half-written one.
            partial = f".{path.name}.partial"
            tree.remove_file(folder, partial)
            _make_pointer(folder, partial, pointer)
            os.rename(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            reach("switch.renamed")
            tree.sync(folder)

    def _check_replaceable(self, folder: int, path: PurePosixPath, pointer: Pointer) -> None:
        wanted = stat.S_IFREG if isinstance(pointer, FilePointer) else stat.S_IFLNK
        if tree.kind_of(folder, path.name) not in {None, wanted}:
            kind = "a file" if isinstance(pointer, FilePointer) else "a symlink"
            raise DeliveryError(f"{self._tree.shown(path)} is not {kind}; it was left alone", code="M4102")
        if isinstance(pointer, CurrentPointer):
            self._check_target(path, pointer.target)

    def _check_target(self, path: PurePosixPath, target: str) -> None:
        whole = path.parent / target
        if _TARGET.fullmatch(target):
            with suppress(FileNotFoundError), self._tree.folder(whole):
                return
        raise DeliveryError(f"{self._tree.shown(whole)} is not a whole release", code="M4102")

    def remove_pointer(self, path: str) -> None:
        """See `Transport.remove_pointer`."""
        pure = _file_path(path)
        with self._tree.step("remove", path), suppress(FileNotFoundError), self._tree.folder(pure.parent) as folder:
            tree.remove_file(folder, pure.name)
            reach("switch.renamed")
            tree.sync(folder)

    # checks and reloads

    def check(self, check: Check, pointer: Pointer) -> str | None:
        """See `Transport.check`."""
        match check:
            case Check.NONE:
                return None
            case Check.NGINX_TEST:
                return self._nginx_test(pointer)
            case Check.NODE_CHECK:
                return self._node_check(pointer)
            case Check.APACHE_TEST:
                return self._apache_test(pointer)
            case _:
                assert_never(check)

    def _nginx_test(self, pointer: Pointer) -> str | None:
        program = find_program("nginx")
        if program is None:
            return "nginx is not installed here: `nginx -t` was not run"
        if self._host.seen_as is not None:
            return f"the paths are those seen as {self._host.seen_as}: `nginx -t` was not run"
        if not isinstance(pointer, FilePointer):
            raise DeliveryError(f"{pointer.path} is not a file that nginx includes", code="M4102")
        ran = self._run_nginx_test(program, pointer)
        if ran.status != 0 and ran.stopped is None and is_only_bind_refused(ran.output):
            return f"nginx read it all, but cannot bind here: {shown_lines(ran.output)[-1]}"
        raise_unless_good(ran, "nginx -t")
        return None

    def _run_nginx_test(self, program: str, pointer: FilePointer) -> Ran:
        import tempfile  # noqa: PLC0415  only an apply checks

        with (
            self._tree.step("check", pointer.path),
            tempfile.TemporaryDirectory(prefix="mtlsctl-nginx-") as folder,
            tree.Tree(folder).folder("/check", create=True) as descriptor,
        ):
            place = f"{folder}/check"
            text = _NGINX_TEST.format(folder=place, pointer=f"{place}/pointer.conf")
            tree.write_new(descriptor, "pointer.conf", pointer.content, 0o600)
            tree.write_new(descriptor, "nginx.conf", text.encode(), 0o600)
            argv = [program, "-t", "-q", "-p", place, "-c", f"{place}/nginx.conf", "-e", "stderr"]
            return run_program(argv, deadline_seconds=self._check_deadline)

    def _node_check(self, pointer: Pointer) -> str | None:
        program = find_program("node")
        if program is None:
            return "node is not installed here: `node --check` was not run"
        if not isinstance(pointer, CurrentPointer):
            raise DeliveryError(f"{pointer.path} is not a symlink to a release", code="M4102")
        module = PurePosixPath(pointer.path).parent / pointer.target / _NODE_MODULE
        argv = [program, "--check", self._tree.shown(module)]
        with self._tree.step("check", pointer.path):
            ran = run_program(argv, deadline_seconds=self._check_deadline)
        raise_unless_good(ran, "node --check")
        return None

    def _apache_test(self, pointer: Pointer) -> str | None:
        import tempfile  # noqa: PLC0415  only an apply checks

        program = apache.find_apache()
        if program is None:
            return "Apache is not installed here: `apache2 -t` was not run"
        if self._host.seen_as is not None:
            return f"the paths are those seen as {self._host.seen_as}: `apache2 -t` was not run"
        if not isinstance(pointer, FilePointer):
            raise DeliveryError(f"{pointer.path} is not a file that Apache includes", code="M4102")
        if self._host.pid_files:  # what runs there runs on this machine
            apache.refuse_taken(self._places_of_apache(pointer.path), pointer.content)
        with self._tree.step("check", pointer.path), tempfile.TemporaryDirectory(prefix="mtlsctl-apache-") as folder:
            return apache.try_configuration(
                program, pointer.content, Path(folder), deadline_seconds=self._check_deadline
            )

    def _places_of_apache(self, path: str) -> frozenset[apache.Place]:
        """Where the pointer on the host makes it listen, and where it does listen."""
        now = self.read_pointer(path)
        found = apache.places_of(now.content) if isinstance(now, FilePointer) else frozenset()
        for _, relative in self._host.pid_files:
            with suppress(ProcessLookupError, OSError, DeliveryError):  # a process of another program, or none
                pid = self._read_pid(relative)
                if pid is not None:
                    Running(pid, apache.PROGRAMS[0]).close()
                    found |= apache.places_open(pid)
        return found

    def reload(self, reload: Reload, *, program: str, process: str) -> str | None:
        """See `Transport.reload`; how a process without workers took it up shows on the wire only."""
        if reload is Reload.NONE:
            return None
        if reload is Reload.RESTART:
            return f"{process} goes on with what it has read until you restart it"
        relative = dict(self._host.pid_files).get(process)
        if relative is None:
            whose = "whether it took this up was not looked at" if reload is Reload.WATCH else "the reload is yours"
            return f"no pid_files entry for {process}: {whose}"
        pid = self._read_pid(relative)
        if pid is None:
            return f"{process} is not running: there is no {relative} below {self._host.directory}"
        try:
            self._signal(reload, pid, program)
        except ProcessLookupError:
            return f"{process} is not running: process {pid} has ended"
        return None

    def _read_pid(self, relative: str) -> int | None:
        path = _file_path("/" + relative.removeprefix("/"))
        with self._tree.step("read", path), suppress(FileNotFoundError), self._tree.folder(path.parent) as folder:
            return parse_pid(tree.read_file(folder, path.name)[0], self._tree.shown(path))
        return None

    def _signal(self, reload: Reload, pid: int, program: str) -> None:
        running = Running(pid, program)
        try:
            match reload:
                case Reload.SIGNAL_HUP_MASTER:
                    hang_up_master(running, deadline_seconds=self._reload_deadline)
                case Reload.SIGNAL_USR1:
                    apache.restart_gracefully(running, deadline_seconds=self._reload_deadline)
                case Reload.SIGNAL_HUP:
                    running.hang_up()
                case _:
                    pass  # it is there, and was told by the rename itself
        except PermissionError as error:
            raise DeliveryError(f"process {pid} may not be signalled: {error.strerror}", code="M4202") from error
        finally:
            running.close()


def _service_path(service: str) -> PurePosixPath:
    if LABEL.fullmatch(service) is None:
        raise DeliveryError(f"{service!r} is not a service's name", code="M4102")
    return service_folder(service)


def _release_path(service: str, release: str) -> PurePosixPath:
    if LABEL.fullmatch(service) is None or RELEASE_NAME.fullmatch(release) is None:
        raise DeliveryError(f"{service!r}, {release!r} do not name a release", code="M4102")
    return release_folder(service, release)


def _key_path(service: str, spki_sha256: str) -> PurePosixPath:
    if LABEL.fullmatch(service) is None or _SPKI.fullmatch(spki_sha256) is None:
        raise DeliveryError(f"{service!r}, {spki_sha256!r} do not name a key", code="M4102")
    return key_file(service, spki_sha256)


def _file_path(path: str) -> PurePosixPath:
    if not tree.components(path):
        raise DeliveryError(f"{path!r} does not name a file", code="M4102")
    return PurePosixPath(path)


def _combined(release: StagedRelease, key: bytes) -> list[StagedFile]:
    """The files that hold the certificate and the key; only the host ever has them."""
    chain = b"".join(file.content for file in release.files if file.path == CERTIFICATE_FILE)
    made = combined(chain, key)
    return [StagedFile(path=path, content=made, mode=SECRET_MODE) for path in release.combined]


def _write_staged(folder: int, file: StagedFile) -> None:
    names = file.path.split("/")
    if file.path == KEY_FILE or not all(tree.is_plain_name(name) for name in names):
        raise DeliveryError(f"{file.path!r} is not the name of a public file of a release", code="M4102")
    _write_at(folder, names, file)


def _write_at(folder: int, names: list[str], file: StagedFile) -> None:
    if len(names) == 1:
        tree.write_new(folder, names[0], file.content, file.mode)
        return
    tree.make_folder(folder, names[0], 0o750, exist_ok=True)
    with tree.open_below(folder, names[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as below:
        _write_at(below, names[1:], file)


def _make_pointer(folder: int, name: str, pointer: Pointer) -> None:
    match pointer:
        case FilePointer():
            tree.write_new(folder, name, pointer.content, pointer.mode)
        case CurrentPointer():
            os.symlink(pointer.target, name, dir_fd=folder)
        case _:
            assert_never(pointer)


def _rename_away(folder: int, name: str, new_name: str) -> None:
    tree.remove_below(folder, new_name)
    with suppress(FileNotFoundError):
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)
