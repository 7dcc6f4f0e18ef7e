"""Whatever stands in a string, rendered files keep their shape: the value is refused, or only its own leaves change.

Twice: recipes are built past the inventory's validation, so that the renderer is alone with each hostile value; and
every string of an inventory goes the whole way, through loader, planner and renderer. Each file is parsed by a reader
of its syntax that is not ours; the tree of the hostile render has to be that of the benign one.
"""

from __future__ import annotations

import base64
import http.server
import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import crossplane
import esprima
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsctl.errors import InventoryError, MtlsctlError, UnsafePlan
from mtlsctl.inventory import load_inventory
from mtlsctl.inventory.shape import INVENTORY, Anything, ListOf, Named, Record, Shape, Word, WordOr
from mtlsctl.model.credential import AuthorityId
from mtlsctl.model.release import Callee, Endpoint, ShownCertificate, recipe_from_json, recipe_to_json
from mtlsctl.model.state import State
from mtlsctl.model.topology import OUTSIDE, InstanceId, ListenerId, ProcessId
from mtlsctl.model.trust import Member, OutsideAnchor, PeerPolicy
from mtlsctl.planner.plan import make_plan
from mtlsctl.render.cases import MADE_UP_PASSWORD, made_up_material
from mtlsctl.render.catalog import runtimes_of
from mtlsctl.render.process import render_pointer
from mtlsctl.render.quoting import FILTERS, Untrusted, Unwritable
from mtlsctl.render.release import fill, render_secret_files
from tests.conftest import find_peer
from tests.integration.peers import APACHE_FOLDER, load_modules
from tests.support.patience import ENDED_SECONDS
from tests.support.topologies import CERTIFICATES, OUTSIDE_FACTS
from tests.unit.render.recipes import FOLDERS, call, door, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtlsctl.model.release import Recipe

HOSTILE = (
    '"; } server { listen 1; ',
    '"',
    "'",
    "\\",
    '\\"',
    "a\\",
    ";",
    "{",
    "}",
    "a b",
    "#",
    "a#b",
    "a;b",
    "$host",
    "${host}",
    "$(id)",
    "`id`",
    "{{ 7*7 }}",
    "{% raw %}",
    "{# x #}",
    "{{ ''.__class__.__mro__ }}",
    "%{HTTP_HOST}",
    "${jndi:ldap://x}",
    "a\nb",
    "a\rb",
    "a\r\nb",
    "a\tb",
    "a\0b",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202eevil",
    "\u200b",
    "\ufeff",
    "\ud800",
    "é",
    "日本",
    "</script>",
    "<!--",
    "*/",
    "/*",
    "//",
    "');process.exit();('",
    '"+process.exit()+"',
    "__proto__",
    "constructor",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "/../x",
    "/a/./b",
    "/a//b",
    "a/b",
    "*",
    "/x*",
    "/x?",
    "/x[a]",
    "~.*",
    "~^",
    ".example.com",
    "*.example.com",
    "_",
    "-",
    "-rf",
    "--insecure",
    "unix:/tmp/x",
    "pkcs11:token",
    "engine:x",
    "data:x",
    "a:b",
    "::1",
    "[::1]",
    "fe80::1%eth0",
    "127.0.0.1:80",
    "localhost",
    "EXAMPLE.com",
    "xn--a",
    "",
    " ",
    " a",
    "a ",
    "A",
    "0",
    "1e3",
    "null",
    "true",
    "1.2",
    "required",
    "none",
    "nginx",
    "node",
    "x" * 64,
    "x" * 300,
    "x" * 5000,
    "http://u:p@h/",
    "http://h/;}",
    "http://h/$host",
    'http://h/"',
    "http://h/\n",
    "https://h/",
    "javascript:alert(1)",
)

PARTNER = OutsideAnchor("partnerca", "ab" * 32)
NAMED = replace(
    door(7443, name="named", callers=("batch", "partnerca")),
    policy=PeerPolicy(
        anchors=frozenset({AuthorityId("batch", 1), PARTNER}),
        members=frozenset(
            {
                Member(AuthorityId("batch", 1), "batch"),
                Member(PARTNER, "api.acme.example"),
            }
        ),
    ),
)
"""A door at which callers from outside are told apart by name."""

BOUGHT = replace(
    door(5443, name="bought", callers=("cron",)), shows=ShownCertificate(("ef" * 32,), "/deep/below/site.key")
)
"""A door that shows a certificate of somebody else."""

BANK = Callee(
    listener=ListenerId("bank", "beyond"),
    endpoints=(Endpoint(InstanceId("bank", OUTSIDE), "api.bank.example", 443),),
    server_name="api.bank.example",
    policy=PeerPolicy(anchors=frozenset({OutsideAnchor("bankca", "cd" * 32)})),
)

MEMBERS = {
    "nginx": recipe(
        "schedule",
        "nginx",
        root="/srv/estate",
        names=("first.example.com", "second.example.com"),
        listeners=[
            door(8443, name="front", callers=("mail", "social")),
            door(9443, name="admin", callers=(), address="10.9.8.7"),
            NAMED,
            BOUGHT,
        ],
        callees=[
            call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer"),
            call("vault", 6443, "10.0.0.6", listener="inner"),
            BANK,
        ],
        settings=[("egress", (("ledger", 9001),)), ("upstream", "http://127.0.0.1:8080")],
    ),
    "apache": recipe(
        "schedule",
        "apache",
        root="/srv/estate",
        names=("first.example.com", "second.example.com"),
        listeners=[
            door(8443, name="front", callers=("mail", "social")),
            door(9443, name="admin", callers=(), address="10.9.8.7"),
            NAMED,
            BOUGHT,
        ],
        callees=[
            call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer"),
            call("vault", 6443, "10.0.0.6", listener="inner"),
            BANK,
        ],
        settings=[("egress", (("ledger", 9001),)), ("upstream", "http://127.0.0.1:8080")],
    ),
    "node": recipe(
        "schedule",
        "node",
        root="/srv/estate",
        listeners=[
            door(8443, name="front", callers=("mail", "social")),
            door(9443, name="admin", callers=()),
            NAMED,
            BOUGHT,
        ],
        callees=[
            call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer"),
            call("vault", 6443, "10.0.0.6", listener="inner"),
            BANK,
        ],
    ),
    "curl": recipe(
        "schedule",
        "curl",
        root="/srv/estate",
        callees=[
            call("ledger", 7443, "10.0.0.5", listener="outer"),
            call("vault", 6443, "db.example.net", listener="inner"),
            BANK,
        ],
    ),
    "java": recipe(
        "schedule",
        "java",
        root="/srv/estate",
        listeners=[door(8443, name="front", callers=("mail", "social"))],
        callees=[call("mail", 7443, "10.0.0.5", listener="outer")],
        settings=[
            ("alias", "thealias"),
            ("keystore_file", "keyfile.jks"),
            ("store_password", "env:MTLSCTL_SECRET_A"),
            ("store_profile", "legacy"),
            ("truststore_file", "trustfile.jks"),
        ],
    ),
    "spring-boot": recipe(
        "schedule",
        "spring-boot",
        root="/srv/estate",
        listeners=[
            door(8443, callers=("mail", "social"), address="10.9.8.7"),
            door(9443, name="management", callers=("cron",)),
        ],
        callees=[
            call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer"),
            call("vault", 6443, "10.0.0.6", listener="inner"),
        ],
        settings=[("alias", "server-1"), ("spring_boot", "2.7"), ("style", "classic")],
    ),
    "spring-boot with bundles": recipe(
        "schedule",
        "spring-boot",
        root="/srv/estate",
        listeners=[door(8443, callers=("mail", "social"), address="10.9.8.7")],
        callees=[call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer")],
        settings=[("spring_boot", "3.5"), ("style", "bundle-pem")],
    ),
    "pem": recipe("schedule", "pem", listeners=[door(name="front")], callees=[call("ledger", 7443, listener="outer")]),
    "ruby": recipe(
        "schedule",
        "ruby",
        root="/srv/estate",
        callees=[
            call("ledger", 7443, "10.0.0.5", "db.example.net", listener="outer"),
            call("vault", 6443, "10.0.0.6", listener="inner"),
        ],
    ),
}


def reads(name: str) -> Any:
    """A parameter whose reader may have to be installed."""
    return pytest.param(name, marks=pytest.mark.peer("ruby")) if name == "ruby" else name


def string_fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every string in a JSON value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, list | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from string_fields(part, (*path, key))


def leaf_at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def with_text(tree: Any, before: Any, after: Any) -> Any:
    """The tree with one text replaced wherever it stands, as a name is that the inventory says once."""
    if isinstance(tree, dict):
        return {key: with_text(value, before, after) for key, value in tree.items()}
    if isinstance(tree, list):
        return [with_text(value, before, after) for value in tree]
    return after if tree == before and isinstance(tree, str) else tree


def rendered(made: Recipe) -> Any:
    """Every text file of the release, and the pointer file."""
    folder = FOLDERS[made.runtime]
    release = fill(made, folder, made_up_material(made))
    files = {file.path: file.content.decode() for file in release.files}
    if release.stores:
        secret = render_secret_files(made, folder, release.release, MADE_UP_PASSWORD)
        files |= {file.path: file.content.decode() for file in secret}
    if folder.manifest.pointer is not None:
        member = (made, release.release)
        pointer = render_pointer(folder, ProcessId("web1", made.runtime), [member]).decode()
        files["pointer.conf" if made.runtime == "nginx" else f"pointer.{made.runtime}"] = pointer
        if made.runtime != "nginx":
            files = {path.replace(".conf", f".{made.runtime}"): text for path, text in files.items()}
    return {path: text.replace(release.release, "RELEASE") for path, text in files.items()}


def nginx_tree(text: str, tmp_path: Path) -> Any:
    file = tmp_path / "parsed.conf"
    file.write_text(text, encoding="utf-8")
    parsed = crossplane.parse(str(file), single=True, comments=True, check_ctx=False, check_args=False)
    assert parsed["errors"] == [], text
    return [_directive(one) for one in parsed["config"][0]["parsed"]]


def _directive(one: Any) -> Any:
    return [
        one["directive"],
        *map(Leaf, one["args"]),
        one.get("comment"),
        [_directive(b) for b in one.get("block", [])],
    ]


class Leaf(str):
    """A value, as opposed to the tree around it."""

    __slots__ = ()


APACHE_WORD = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]\S*))""")
APACHE_STRING = re.compile(r"""'((?:[^'\\]|\\.)*)'""")


def apache_tree(text: str, _: Any) -> Any:
    """Apache's syntax as its manual describes it; `apache2` itself agrees, below."""
    tree: list[Any] = []
    within = [tree]
    for line in re.sub(r"\\\n", "", text).split("\n"):
        stripped = line.strip()
        if stripped.startswith("</"):
            within.pop()
        elif stripped.startswith("<"):
            inner: list[Any] = []
            within[-1].append([*_apache_line(stripped[1:].removesuffix(">")), inner])
            within.append(inner)
        elif stripped.startswith("#"):
            within[-1].append([stripped])
        elif stripped:
            within[-1].append(_apache_line(stripped))
    assert within == [tree], text
    return tree


def _apache_line(line: str) -> list[Any]:
    directive, _, rest = line.partition(" ")
    if directive == "Require":
        parts = APACHE_STRING.split(rest)
        return [directive, *(Leaf(re.sub(r"\\(.)", r"\1", one)) if at % 2 else one for at, one in enumerate(parts))]
    words, at = [directive], 0
    while rest[at:].strip():
        found = APACHE_WORD.match(rest, at)
        assert found is not None, line
        at = found.end()
        words.append(found[2] if found[1] is None else _apache_leaf(directive, found[1]))
    return words


def _apache_leaf(directive: str, word: str) -> Any:
    if "${" in word or "%{" in word:
        return ["expanded", word]
    if directive == "ErrorDocument":
        word = word.removesuffix(r"\n")
    # The target of a proxy always ends with a slash, whether what stands for it does or not.
    return Leaf(word.removesuffix("/") if directive.startswith("ProxyPass") and word != "/" else word)


REST = "\n// All copies of this module"
"""Where the values end in `mtls.cjs`: what follows is compared as text, since reading it each time takes long."""


def js_tree(text: str, _: Any) -> Any:
    values, _, rest = text.partition(REST)
    return [_js(esprima.parseScript(values, comment=True).toDict()), rest]


def _js(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("type") == "Literal" and isinstance(node.get("value"), str):
            # The reader leaves the two halves of a character outside the basic plane apart, as JavaScript does.
            return ["Literal", Leaf(node["value"].encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))]
        return {key: _js(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_js(one) for one in node]
    return node if isinstance(node, str | int | float | bool | None) else repr(node)


RUBY_REST = "\n# What all copies of this file"
"""Where the values end in `mtls.rb`."""

RUBY_READER = """
require 'json'
require 'ripper'
$stdout.sync = true
while (line = gets)
  text = JSON.parse(line).first
  words = []
  Ripper.lex(text).each do |_, type, word, _|
    next if %i[on_sp on_ignored_nl].include?(type)
    # A string in one piece: what Ruby makes of it.
    type, word = words.pop(2).map(&:last).then { |begun, said| [:leaf, eval(begun + said + word)] } if
      type == :on_tstring_end && words.last(2).map(&:first) == %i[on_tstring_beg on_tstring_content]
    words << [type, word]
  end
  puts JSON.generate([!Ripper.sexp(text).nil?, words])
end
"""


@cache
def ruby_reader() -> subprocess.Popen[str]:
    """Ruby's own lexer and parser, started once."""
    command = ["ruby", "-E", "UTF-8", "-e", RUBY_READER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _readers_end() -> Iterator[None]:
    yield
    if ruby_reader.cache_info().currsize:
        ruby_reader().communicate()
        ruby_reader.cache_clear()  # a worker may come back to these tests after others


def ruby_tree(text: str, _: Any) -> Any:
    """The words of the part with the values, nested as the brackets are, items between commas."""
    values, _, rest = text.partition(RUBY_REST)
    reader = ruby_reader()
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(json.dumps([values]) + "\n")
    reader.stdin.flush()
    is_ruby, words = json.loads(reader.stdout.readline())
    assert is_ruby, values
    return [nested(iter(words)), rest]


def nested(words: Iterator[Any]) -> Any:
    items: list[list[Any]] = [[]]
    for kind, word in words:
        if kind in ("on_lbrace", "on_lbracket"):
            items[-1].append([word, nested(words)])
        elif kind in ("on_rbrace", "on_rbracket"):
            break
        elif kind == "on_comma":
            items.append([])
        else:
            items[-1].append(Leaf(word) if kind == "leaf" else [kind, word])
    return items


CURL_LINE = re.compile(r'([a-z0-9.-]+) = "((?:[^"\\]|\\.)*)"')


def curl_tree(text: str, _: Any) -> Any:
    """The grammar that curl's manual documents for config files, as far as our templates use it."""
    tree = []
    for line in text.removesuffix("\n").split("\n"):
        if found := CURL_LINE.fullmatch(line):
            option, value = found[1], re.sub(r"\\(.)", r"\1", found[2])
            if option == "connect-to":
                # A numeric address is reached by `resolve`, a name by this, which says the port once more.
                option, value = "resolve", value.rpartition(":")[0]
            tree.append([option, Leaf(value)])
        else:
            assert re.fullmatch(r"#.*|[a-z0-9.-]+", line), line
            tree.append([line])
    return tree


def argument_tree(text: str, _: Any) -> Any:
    """What the `java` launcher documents for argument files: words, quotes, `\\` inside them, comments."""
    words: list[Any] = []
    for line in text.removesuffix("\n").split("\n"):
        assert line.isascii(), line
        if line.startswith("#"):
            words.append([line])
        elif found := re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', line):
            name, equals, value = re.sub(r"\\(.)", r"\1", found[1]).partition("=")
            words.append(
                [name + equals, Leaf(value)] if name.startswith("-D") and equals else [Leaf(name + equals + value)]
            )
        else:
            assert re.fullmatch(r"[^\s\"'\\#@]+", line), line
            words.append([line])
    return words


PROPERTY = re.compile(r"([a-zA-Z.-]+)(?:\[([a-z0-9.-]+)\]([a-z.-]+))?=(.*)")


def properties_tree(text: str, _: Any) -> Any:
    """What `java.util.Properties` documents, as far as our templates use it, with Spring's names in brackets."""
    tree: list[Any] = []
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("#") or not line:
            tree.append([line])
            continue
        assert line.isascii(), line
        assert "${" not in line
        assert "#{" not in line
        found = PROPERTY.fullmatch(line)
        assert found is not None, line
        before, name, after, value = found.groups()
        key = [before] if name is None else [before, Leaf(name), after]
        tree.append([*key, Leaf(_property(value))])
    return tree


def _property(value: str) -> str:
    units = re.sub(r"\\(u[0-9a-f]{4}|.)", lambda one: chr(int(one[1][1:], 16)) if len(one[1]) > 1 else one[1], value)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def text_tree(text: str, _: Any) -> Any:
    return text.split("\n")


def tree_of(path: Any, text: str, tmp_path: Path) -> Any:
    readers = {
        ".conf": nginx_tree,
        ".apache": apache_tree,
        ".cjs": js_tree,
        ".curlrc": curl_tree,
        ".args": argument_tree,
        ".rb": ruby_tree,
        ".properties": properties_tree,
    }
    return next((read for end, read in readers.items() if path.endswith(end)), text_tree)(text, tmp_path)


def flat(tree: Any) -> Any:
    """The leaves, and the tree with each leaf replaced by a mark."""
    leaves = []

    def mark(node: Any) -> Any:
        if isinstance(node, Leaf):
            leaves.append(str(node))
            return "LEAF"
        if isinstance(node, dict):
            return {key: mark(value) for key, value in node.items()}
        return [mark(one) for one in node] if isinstance(node, list) else node

    return mark(tree), leaves


@cache
def shape_of(path: Any, text: str, tmp_path: Path) -> Any:
    return flat(tree_of(path, text, tmp_path))


def check_shape(benign: Any, files: Any, before: Any, hostile: str, tmp_path: Path) -> None:
    """The same files but for the value in their names, each with the same tree and no other leaf changed."""
    renamed = {path.replace(before, hostile): text for path, text in benign.items()}
    assert files.keys() in (renamed.keys(), benign.keys())
    for path, text in (renamed if files.keys() == renamed.keys() else benign).items():
        if path.endswith((".pem", ".crt")):
            continue
        shape, leaves = shape_of(path, text, tmp_path)
        new_shape, new_leaves = shape_of(path, files[path], tmp_path)
        assert shape == new_shape
        # A slash at the end is Apache's to add, wherever a proxy leads to. Lists are sorted, so that places may change.
        given = (hostile, f"[{hostile}]", hostile.removesuffix("/"))
        left = list(leaves)
        for new in new_leaves:
            meant = (old for old in left if new in (old, *(old.replace(before, one) for one in given)))
            old = next(meant, None)
            assert old is not None, new
            left.remove(old)
        assert not left


CLOSED = {"runtime", "client_certificate", "protocols"}
"""Fields with a closed set of words: another word of the set is another meaning, and nothing else is taken."""

FIELDS = [
    pytest.param(name, path, marks=[pytest.mark.peer("ruby")] if name == "ruby" else [])
    for name, made in MEMBERS.items()
    for path in string_fields(recipe_to_json(made))
    if not CLOSED & set(path) and leaf_at(recipe_to_json(made), path)
]


def dotted(one: Any) -> str:
    return one if isinstance(one, str) else ".".join(map(str, one))


def outcome(name: str, path: Any, hostile: str, benign: Any, tmp_path: Path) -> str:
    if name == "apache" and path[0] == "server_names" and hostile in ("::1", "fe80::1%eth0"):
        return "taken"  # nobody can ask for an address by SNI (RFC 6066 section 3), so it is no name of a virtual host
    if "endpoints" in path and not hostile:
        return "taken"  # an endpoint on no host of ours is an external server, whose chain may be longer
    plain = recipe_to_json(MEMBERS[name])
    before = leaf_at(plain, path)
    try:
        files = rendered(replace(recipe_from_json(with_text(plain, before, hostile)), runtime=MEMBERS[name].runtime))
    except (MtlsctlError, ValueError):
        return "refused"
    check_shape(benign, files, before, hostile, tmp_path)
    return "taken"


@pytest.mark.parametrize(("name", "path"), FIELDS, ids=dotted)
def test_a_hostile_value_is_refused_or_stays_a_leaf(name: str, path: Any, tmp_path: Path) -> None:
    benign = rendered(MEMBERS[name])
    for hostile in HOSTILE:
        outcome(name, path, hostile, benign, tmp_path)


@pytest.mark.parametrize(("name", "path"), FIELDS, ids=dotted)
def test_an_honest_value_is_taken(name: str, path: Any, tmp_path: Path) -> None:
    honest = {
        ("nginx", ("settings", 1, 1)): "http://elsewhere",
        ("apache", ("settings", 1, 1)): "http://elsewhere",
        ("java", ("settings", 2, 1)): "generated",
        ("java", ("settings", 3, 1)): "modern",
        ("spring-boot", ("settings", 1, 1)): "3.0",
        ("spring-boot", ("settings", 2, 1)): "classic",
        ("spring-boot with bundles", ("settings", 0, 1)): "4.0",
        ("spring-boot with bundles", ("settings", 1, 1)): "bundle-pem",
    }.get((name, path), "/elsewhere" if path == ("root",) or path[-2:] == ("shows", 1) else "elsewhere")
    is_name_of_setting = path[0] == "settings" and path[2:] == (0,)
    is_name_of_door = name.startswith("spring") and path[0] == "listeners" and path[-1] == "name"
    expected = "refused" if is_name_of_setting or is_name_of_door else "taken"
    assert expected == outcome(name, path, honest, rendered(MEMBERS[name]), tmp_path)


def written_lines(folder: Path, files: Any) -> list[str]:
    """Puts the files where they name each other, and gives every directive that Apache is to find, a line for each."""
    release = folder / "etc/mtlsctl/schedule/releases/RELEASE"
    files = {path: text.replace("/srv/estate", str(folder)) for path, text in files.items()}
    for path, text in {**files, "tls.key": "key", "tls.combined": "key"}.items():
        place = release / path.replace(".apache", ".conf")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return list(_directives(files, "pointer.apache"))


def _directives(files: Any, path: str) -> Iterator[str]:
    unread = False
    for line in map(str.strip, files[path].split("\n")):
        if "IfVersion" in line:
            unread = line.startswith("<IfVersion <")  # what runs here is newer than that
        elif "IfModule" in line:
            unread = line == "<IfModule mod_access_compat.c>"  # not loaded here
        elif line.startswith("Include "):
            yield from _directives(files, line.rpartition("/RELEASE/")[2].removesuffix('.conf"') + ".apache")
        elif line and not line.startswith("#") and not unread:
            yield line


def lines_that_apache_read(folder: Path) -> list[str] | None:
    """`apache2 -t -D DUMP_CONFIG`: each directive and section as Apache understood where it begins and ends.

    None when it stopped at a name that is not known here, as it may.
    """
    release = folder / "etc/mtlsctl/schedule/releases/RELEASE"
    main = folder / "main.conf"
    main.write_text(
        f'ServerRoot "{folder}"\nDefaultRuntimeDir "{folder}"\nErrorLog "{folder}/log"\nServerName x\n'
        f"{load_modules()}\nLoadModule info_module {APACHE_FOLDER}/mod_info.so\nInclude {release}/pointer.conf\n"
    )
    argv = [str(find_peer("apache2")), "-t", "-D", "DUMP_CONFIG", "-f", str(main)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)
    if "failed to set up sockaddr for" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    ours, found = False, []
    for line in map(str.strip, done.stdout.split("\n")):
        if line.startswith("# In file: "):
            ours = line.removeprefix("# In file: ").startswith(str(release))
        elif line and ours and not re.fullmatch(r"#\s+[0-9]+:", line):
            found.append(re.sub(r"^(<[A-Za-z]+) >$", r"\1>", line))
    return found


@pytest.mark.peer("apache2")
@pytest.mark.skipif(find_peer("apache2") is None, reason="apache2 is not installed")
@pytest.mark.parametrize(
    "path",
    [path for path in string_fields(recipe_to_json(MEMBERS["apache"])) if not {*CLOSED, "root"} & set(path)],
    ids=dotted,
)
def test_apache_reads_a_hostile_value_where_we_wrote_it_and_nothing_else(path: Any, tmp_path: Path) -> None:
    """Not one directive more or less, none joined with the next, nothing expanded."""
    plain = recipe_to_json(MEMBERS["apache"])
    before, taken = leaf_at(plain, path), 0
    for number, hostile in enumerate((before, *HOSTILE)):
        try:
            made = replace(recipe_from_json(with_text(plain, before, hostile)), runtime="apache")
            files = rendered(made)
        except (MtlsctlError, ValueError):
            continue
        files = {name: text.replace(f"/{made.instance.service}/", "/schedule/") for name, text in files.items()}
        folder = tmp_path / str(number)
        folder.mkdir()
        for shows in (served.shows for served in made.listeners if served.shows is not None):
            key = folder / shows.key_path.lstrip("/")
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_text("key")
        expected = written_lines(folder, files)
        read = lines_that_apache_read(folder)
        assert read in (expected, None), hostile
        taken += read is not None
    assert taken >= 1


@pytest.mark.parametrize("field", ["client_certificate", "protocols"])
def test_a_word_outside_a_closed_set_is_refused(field: str) -> None:
    plain: dict[str, Any] = recipe_to_json(MEMBERS["nginx"])
    for hostile in set(HOSTILE) - {"required", "optional", "none", "1.2", "1.3"}:
        before = plain["listeners"][0][field]
        plain["listeners"][0][field] = [hostile] if isinstance(before, list) else hostile
        with pytest.raises((MtlsctlError, ValueError)):
            rendered(recipe_from_json(plain))
        plain["listeners"][0][field] = before


# --- the language itself ----------------------------------------------------------------------------------------

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUNTIMES = runtimes_of(FOLDERS)
EACH = "*"
"""In a path: the name of an entry that the author chose. In front of the last word: the name itself."""

# Every word that is a name or a text stands here under a text that is part of no other, so that a place can be followed
# into the files; what it names elsewhere (a host, a caller) is renamed with it.
SAMPLE: Any = {
    "version": "1",
    "name": "estatename",
    "defaults": {
        "certificate": {"key": "ecdsa-p256", "lifetime": "80d", "renew_before": "20d"},
        "certification_authority": {"key": "ed25519", "lifetime": "800d", "renew_before": "200d"},
    },
    "trust": {
        "model": "service-ca",
        "certification_authority": {
            "key": "ed25519",
            "lifetime": "900d",
            "renew_before": "220d",
            "generation": "4",
        },
    },
    "hosts": {
        "folderhost": {
            "directory": "outfolder",
            "address": "folderaddress.example",
            "pid_files": {"program": "run/ownpid"},
        },
        "seenhost": {"directory": "otherfolder", "address": "10.9.8.7", "seen_as": "/seenroot"},
        "sshhost": {
            "address": "sshaddress.example",
            "port": "2222",
            "user": "deployuser",
            "identity_file": "/identityfile",
            "jump": "jumphost.example",
            "become": "false",
            "keys": "controller",
        },
    },
    "services": {
        "frontdoor": {
            "runtime": "nginx",
            "hosts": ["folderhost", "sshhost"],
            "names": ["firstname.example", "secondname.example"],
            "addresses": "false",
            "listeners": [
                {
                    "name": "longdoor",
                    "port": "8443",
                    "bind": "all",
                    "client_certificate": "required",
                    "protocols": ["1.2", "1.3"],
                    "authorize": "any-member",
                    "forward_identity": "headers",
                    "callers": ["shellcaller", "program"],
                },
                {
                    "name": "otherdoor",
                    "port": "8444",
                    "callers": [
                        "shellcaller",
                        "program",
                        {"name": "outsider", "certificates": ["partnerfile"], "identities": ["outsideidentity"]},
                    ],
                },
                {
                    "name": "opendoor",
                    "port": "8445",
                    "callers": [{"name": "club", "certificates": ["openfile"], "authorize": "any-member"}],
                },
                {
                    "name": "boughtdoor",
                    "port": "8449",
                    "callers": ["shellcaller"],
                    "server_certificate": {"chain": "chainpiece", "key_path": "/keyplace"},
                    "servers_trust": ["issuerfile"],
                },
            ],
            "settings": {"upstream": "http://upstreamhost.example:8080/upstreampath", "egress": {"filekeeper": "9001"}},
            "certificate": {"key": "ecdsa-p256", "lifetime": "70d", "renew_before": "21d"},
            "certification_authority": {
                "key": "ed25519",
                "lifetime": "700d",
                "renew_before": "210d",
                "generation": "3",
            },
            "trust": {"model": "service-ca"},
        },
        "filekeeper": {
            "runtime": "pem",
            "hosts": ["seenhost"],
            "listen": "7443",
            "bind": "host",
            "authorize": "any-member",
            "callers": ["frontdoor", "shellcaller", "program"],
        },
        "shortdoor": {
            "runtime": "nginx",
            "hosts": ["seenhost"],
            "listen": "8446",
            "client_certificate": "required",
            "forward_identity": "headers",
            "callers": [
                "shellcaller",
                {"name": "visitor", "certificates": ["callerfile"], "identities": ["foreignname"]},
            ],
            "settings": {"upstream": "http://upstreamhost.example:8080/upstreampath"},
        },
        "wideopen": {
            "runtime": "nginx",
            "hosts": ["seenhost"],
            "listen": "8447",
            "callers": [{"name": "society", "certificates": ["unionfile"], "authorize": "any-member"}],
        },
        "shopfront": {
            "runtime": "nginx",
            "hosts": ["seenhost"],
            "listen": "8448",
            "callers": ["program"],
            "server_certificate": {"chain": "secondpiece", "key_path": "/deeper/secondplace"},
            "servers_trust": ["secondissuer"],
        },
        "requester": {"runtime": "pem", "hosts": ["seenhost"], "certificate_request": "onerequest"},
        "petitioner": {
            "runtime": "pem",
            "hosts": ["folderhost"],
            "certificate_request": {"folderhost": "onepetition"},
        },
        "shellcaller": {"runtime": "curl", "hosts": ["seenhost"]},
        "program": {"runtime": "node", "hosts": ["folderhost"]},
    },
    "moved": [{"host": "formerhost", "to": "sshhost"}, {"service": "formername", "to": "frontdoor"}],
    "removed": [{"host": "lostmachine", "abandon": "true"}],
    "external_servers": [
        {
            "name": "elsewhere",
            "endpoint": "outsidehost.example:4443",
            "certificates": ["serverfile"],
            "callers": ["program", "shellcaller"],
        },
    ],
}
FILES = ("partnerfile", "openfile", "serverfile", "callerfile", "unionfile")
CHAINS = ("chainpiece", "issuerfile", "secondpiece", "secondissuer")
REQUESTS = ("onerequest", "onepetition")
if find_peer("ruby"):
    SAMPLE["services"]["gemcaller"] = {"runtime": "ruby", "hosts": ["seenhost"]}
    SAMPLE["services"]["filekeeper"]["callers"].append("gemcaller")

OTHER_MEANING: dict[str, Any] = {
    "version": set(),
    "runtime": set(FOLDERS),
    "addresses": {"true"},
    "bind": set(),
    "client_certificate": {"required", "optional", "none"},
    "forward_identity": set(),
    "abandon": {"true"},
    "protocols": {"1.2"},
    "key": set(),
    "model": set(),
    "authorize": set(),
    "become": {"true"},
    "keys": {"host"},
    "lifetime": set(),
    "renew_before": set(),
    "generation": set(),
    "port": set(),
    "listen": set(),
}
"""Keys whose words are chosen or counted, with the hostile words that they take: each is another meaning, no leaf."""


def places_of(shape: Shape, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place of the language where a text of the author's stands."""
    match shape:
        case Word():
            yield path
        case WordOr():
            yield path
            yield from places_of(shape.mapping, (*path, "mapping"))
        case Anything():
            yield (*path, "...")
        case ListOf():
            yield from places_of(shape.each, (*path, "[]"))
        case Named():
            yield (*path, "name of an entry")
            yield from places_of(shape.each, (*path, EACH))
        case Record():
            for key, inner in shape.fields.items():
                yield from places_of(inner, (*path, key))


def texts_of(node: Any, shape: Shape, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of an inventory with its place in the language; of settings, each word and name inside."""
    match shape:
        case WordOr() if isinstance(node, dict):
            yield from texts_of(node, shape.mapping, (*path, "mapping"))
        case Word() | WordOr():
            yield path, node
        case Anything():
            inner = [node] if isinstance(node, str) else [*node, *node.values()]
            yield from (((*path, "..."), text) for text in inner)
        case ListOf():
            for one in node:
                yield from texts_of(one, shape.each, (*path, "[]"))
        case Named():
            for name, one in node.items():
                yield (*path, "name of an entry"), name
                yield from texts_of(one, shape.each, (*path, EACH))
        case Record():
            for key, one in node.items():
                yield from texts_of(one, shape.fields[key], (*path, key))


TEXTS = sorted(set(texts_of(SAMPLE, INVENTORY)))


def is_meaning(place: tuple[str, ...], text: str) -> bool:
    """Whether another text at this place says something else, and names nothing else."""
    return text.isdigit() or place[-1] in OTHER_MEANING or "protocols" in place


SETTINGS = {setting.name for runtime in RUNTIMES.values() for setting in runtime.settings}
MEANINGS = sorted({place: text for place, text in TEXTS if is_meaning(place, text)}.items())
NAMES = sorted({text: place for place, text in reversed(TEXTS) if not is_meaning(place, text)}.items())
"""A text that stands in several places is the same name there, so it is tried once."""


def renamed(tree: Any, before: str, after: str) -> Any:
    """The tree with one text replaced wherever it stands, as a key too."""
    if isinstance(tree, dict):
        return {after if key == before else key: renamed(value, before, after) for key, value in tree.items()}
    if isinstance(tree, list):
        return [renamed(one, before, after) for one in tree]
    return after if tree == before else tree


def put(tree: Any, place: tuple[str, ...], before: str, after: str) -> Any:
    """The tree with the text replaced at the places of this kind alone."""
    if not place or place[0] == "...":
        return renamed(tree, before, after)
    first, rest = place[0], place[1:]
    if isinstance(tree, list):
        return [put(one, rest, before, after) for one in tree]
    if first == "mapping":
        return put(tree, rest, before, after) if isinstance(tree, dict) else tree
    if isinstance(tree, str):
        return tree
    chosen = tree.keys() if first == EACH else {first} & tree.keys()
    return {key: put(one, rest, before, after) if key in chosen else one for key, one in tree.items()}


def written(hostile_tree: str, folder: Path) -> Any:
    """What an inventory gives in the end: every file by host, service and name. None when it is refused."""
    file = folder / "inventory.yaml"
    file.write_text(hostile_tree, encoding="utf-8")
    try:
        inventory = load_inventory(file, RUNTIMES, root=folder).inventory
    except InventoryError:
        return None
    state = State(lineage="0" * 32, serial=0, estate=inventory.name)
    facts = dict.fromkeys((*inventory.certificates, *inventory.chains), OUTSIDE_FACTS[CERTIFICATES[0]])
    plan = make_plan(inventory, state, RUNTIMES, NOW, facts)
    if plan.refusals:
        return None
    recipes = {step.id.instance: step.recipe for step in plan.steps if step.recipe is not None}
    assert sorted(recipes) == sorted(one for service in inventory.services.values() for one in service.instances)
    try:
        return dict(files_of(recipes.values()))
    except UnsafePlan:
        return None


def files_of(recipes: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    members: dict[ProcessId, list[tuple[Recipe, str]]] = {}
    releases = []
    for made in recipes:
        release = fill(made, FOLDERS[made.runtime], made_up_material(made))
        releases.append(release.release)
        members.setdefault(made.process, []).append((made, release.release))
        for one in release.files:
            if not one.path.endswith((".pem", ".crt")):
                yield (*made.instance, one.path), one.content.decode().replace(release.release, "RELEASE")
    for process, some in members.items():
        folder = FOLDERS[some[0][0].runtime]
        if folder.manifest.pointer is not None:
            text = render_pointer(folder, process, some).decode()
            for digits in releases:
                text = text.replace(digits, "RELEASE")
            yield (*process, "pointer.conf"), text


def check_files(benign: Any, files: Any, before: str, after: str, folder: Path) -> None:
    """The same files, but for the text in their names, each of the same shape, with no other leaf changed."""

    def followed(text: str) -> str:
        path = str(folder / before)
        return text.replace(path, str(folder / after)) if path in text else text.replace(before, after)

    expected = {tuple(followed(part) for part in name): text for name, text in benign.items()}
    assert expected.keys() == files.keys()
    for name, text in expected.items():
        if text == files[name] and followed(text) == text:
            continue
        wanted = unordered(parsed(name[-1], text, folder), followed)
        assert wanted == unordered(parsed(name[-1], files[name], folder), str)


parsed = cache(tree_of)


def unordered(node: Any, followed: Callable[[str], str]) -> Any:
    """The tree with its leaves followed and its siblings sorted, as they are written in the order of names.

    Lower case and without brackets: DNS names are made lower case, and an address before a port stands in brackets.
    """
    if isinstance(node, Leaf):
        return "LEAF " + followed(str(node)).lower().replace("[", "").replace("]", "")
    if isinstance(node, dict):
        return {key: unordered(value, followed) for key, value in node.items()}
    return sorted((unordered(one, followed) for one in node), key=json.dumps) if isinstance(node, list) else node


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all, so that what was parsed once is known."""
    folder = tmp_path_factory.mktemp("inventory")
    for name in (*FILES, *CHAINS, *REQUESTS):
        label = "CERTIFICATE REQUEST" if name in REQUESTS else "CERTIFICATE"
        pem = f"-----BEGIN {label}-----\n{base64.b64encode(name.encode()).decode()}\n-----END {label}-----\n"
        (folder / name).write_text(pem)
        (folder / honest(name)).write_text(pem)
    return folder


def honest(text: str) -> str:
    """Another text of the kind."""
    return "192.0.2.9" if text == "10.9.8.7" else text.replace("e", "a")


def dotted_place(one: Any) -> str:
    return one if isinstance(one, str) else ".".join(one)


def test_the_sample_has_a_text_at_every_place_of_the_language() -> None:
    assert sorted(set(places_of(INVENTORY))) == sorted({place for place, _ in TEXTS})


def test_a_field_that_the_sample_lacks_is_found() -> None:
    more = replace(INVENTORY, fields={**INVENTORY.fields, "colour": Word()})
    assert {("colour",)} == set(places_of(more)) - {place for place, _ in TEXTS}


def test_the_sample_is_taken_and_no_name_in_it_is_part_of_another_text(one_folder: Path) -> None:
    assert written(json.dumps(SAMPLE), one_folder)
    for name in {name for name, _ in NAMES} - SETTINGS:
        assert {name} == {text for _, text in TEXTS if name in text}


def test_a_directive_more_in_a_file_is_found(one_folder: Path) -> None:
    benign = written(json.dumps(SAMPLE), one_folder)
    check_files(benign, benign, "outfolder", "outfolder", one_folder)
    name = next(name for name in benign if name[-1] == "nginx.conf")
    with pytest.raises(AssertionError):
        check_files(benign, {**benign, name: benign[name] + "listen 1;\n"}, "outfolder", "outfolder", one_folder)


@pytest.mark.parametrize(("before", "place"), NAMES, ids=dotted_place)
def test_a_hostile_text_in_an_inventory_is_refused_or_stays_a_leaf(
    before: str, place: tuple[str, ...], one_folder: Path
) -> None:
    benign = written(json.dumps(SAMPLE), one_folder)
    assert before in SETTINGS or written(json.dumps(renamed(SAMPLE, before, honest(before))), one_folder)
    for hostile in HOSTILE:
        files = written(json.dumps(renamed(SAMPLE, before, hostile)), one_folder)
        if files is not None:
            check_files(benign, files, before, hostile, one_folder)


@pytest.mark.parametrize(("place", "before"), MEANINGS, ids=dotted_place)
def test_a_hostile_text_where_words_are_chosen_or_counted_is_refused(
    place: tuple[str, ...], before: str, one_folder: Path
) -> None:
    known: set[str] = next((OTHER_MEANING[key] for key in reversed(place) if key in OTHER_MEANING), set())
    for hostile in set(HOSTILE) - known:
        changed = put(SAMPLE, place, before, hostile)
        assert changed != SAMPLE
        assert written(json.dumps(changed), one_folder) is None, hostile


READERS = {
    "nginx": ("word {};\n", nginx_tree),
    "js": ("word({});\n", js_tree),
    "curl": ("word = {}\n", curl_tree),
    "java_argument": ("{}\n", argument_tree),
    "ruby": ("word = {{ a: {}, b: 1 }}\n", ruby_tree),
    "spring": ("word={}\n", properties_tree),
    "spring_name": ("word{}.word=value\n", properties_tree),
}


@pytest.mark.parametrize("syntax", [reads(syntax) for syntax in sorted(READERS)])
@given(text=st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30)))
def test_a_filter_gives_one_word_that_reads_back_as_the_value(
    syntax: str, text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pattern, read = READERS[syntax]
    folder = tmp_path_factory.getbasetemp()
    try:
        line = pattern.format(str.__str__(FILTERS[syntax](Untrusted(text))))
    except Unwritable:
        assert syntax != "js"
        return
    shape, leaves = flat(read(line, folder))
    assert flat(read(pattern.format(str.__str__(FILTERS[syntax](Untrusted("x")))), folder))[0] == shape
    assert text == leaves[0]


@pytest.mark.parametrize("syntax", ["nginx", "curl", "js", "java_argument"])
def test_an_honest_value_is_written_as_it_is(syntax: str) -> None:
    text = "/etc/mtlsctl/mail/releases/0123456789abcdef/tls.crt"
    assert f'"{text}"' == FILTERS[syntax](Untrusted(text))


@pytest.mark.peer("ruby")
def test_a_string_that_is_more_than_a_value_is_found(tmp_path: Path) -> None:
    benign = ruby_tree("word = { a: 'x', b: 1 }\n", tmp_path)
    for text in ('"x#{exit}"', "'x' + exit", "'x', c: exit", "'x' } # '"):
        try:
            changed = ruby_tree(f"word = {{ a: {text}, b: 1 }}\n", tmp_path)
        except AssertionError:
            continue
        assert flat(benign)[0] != flat(changed)[0]


@pytest.mark.peer("ruby")
def test_ruby_itself_takes_the_module_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "mtls.rb"
    file.write_text(rendered(MEMBERS["ruby"])["mtls.rb"], "utf-8")
    checked = subprocess.run(["ruby", "-wc", file], capture_output=True, text=True, check=False, timeout=ENDED_SECONDS)
    assert (0, "Syntax OK\n", "") == (checked.returncode, checked.stdout, checked.stderr)


@pytest.mark.peer("curl")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_itself_reads_each_quoted_value_as_it_was(tmp_path: Path) -> None:
    seen = []

    class Remember(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["User-Agent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    values = [one for one in HOSTILE if one.isascii() and one.isprintable() and one.strip() == one != ""]
    values = [one for one in values if len(one) < 100]
    config = tmp_path / "rc"
    with http.server.HTTPServer(("127.0.0.1", 0), Remember) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        lines = [f'user-agent = {FILTERS["curl"](Untrusted(one))}\nurl = "{url}"\n' for one in values]
        config.write_text("next\n".join(lines))
        subprocess.run(["curl", "-q", "-s", "-K", config], check=True, timeout=ENDED_SECONDS)
        server.shutdown()
    assert values == seen


def test_a_filter_that_quotes_nothing_is_caught(tmp_path: Path) -> None:
    """The oracle itself: what a careless template would write changes the tree."""
    shape, _ = flat(nginx_tree("word x;\n", tmp_path))
    hostile, _ = flat(nginx_tree("word x; return 200;\n", tmp_path))
    assert shape != hostile
    assert json.dumps(shape)
