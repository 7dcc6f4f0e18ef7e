"""Our reader of ssh_config(5), held against `ssh -G` where there is one."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtlsctl.deliver import ssh_config
from mtlsctl.deliver.reach import SshOptions, check_words, parse_hop, reach_hop, reach_host
from mtlsctl.deliver.ssh_config import Asked, expand, matches_pattern, resolve, split_arguments
from mtlsctl.errors import DeliveryError
from mtlsctl.model.topology import SshHost
from tests.conftest import find_peer

if TYPE_CHECKING:
    from collections.abc import Sequence


def asked(name: str = "web1.example.net", *, port: int | None = None, user: str | None = None, **environ: str) -> Asked:
    home = Path(os.environ["HOME"])
    return Asked(original=name, user=getpass.getuser(), home=home, set_port=port, set_user=user, environ=environ)


def read(text: str, name: str = "web1.example.net", *, tmp_path: Path, **options: str) -> Asked:
    config = tmp_path / "config"
    config.write_text(text)
    return resolve(asked(name, **options), config=config)  # type: ignore[arg-type]


def test_the_first_value_counts_and_keys_add_up(tmp_path: Path) -> None:
    found = read(
        "User first\nHost web1*\n User second\n Port 2222\n IdentityFile ~/a\nHost *\n Port 1\n IdentityFile ~/b\n",
        tmp_path=tmp_path,
    )
    assert (found.login, found.port) == ("first", 2222)
    assert found.values["identityfile"] == ("~/a", "~/b")


def test_what_is_asked_for_wins_over_the_files(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("User other\nPort 99\nMatch user me\n Compression yes\n")
    found = resolve(asked(port=2222, user="me"), config=config)
    assert (found.login, found.port, found.one("compression")) == ("me", 2222, "yes")


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "", True),
        ("web?", "web1", True),
        ("web?", "web", False),
        ("*.example.net", "web1.example.net", True),
        ("*.example.net", "example.net", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-b-b-d", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a" * 50 + "*" * 50 + "b", "a" * 5000, False),
        ("*a" * 40, "a" * 2000 + "b", False),
    ],
)
def test_a_pattern_has_stars_and_question_marks_and_nothing_else(pattern: str, name: str, fits: bool) -> None:  # noqa: FBT001
    assert matches_pattern(pattern, name) is fits


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ('"a b" c', ["a b", "c"]),
        ("'a \"b\"' c", ['a "b"', "c"]),
        (r"a\ b \\ \"", ["a b", "\\", '"']),
        ("a # rest", ["a"]),
        ("a#b", ["a#b"]),
        ('""', [""]),
        ("", []),
    ],
)
def test_words_are_split_as_ssh_splits_them(text: str, words: Sequence[str]) -> None:
    assert list(split_arguments(text, "here")) == list(words)


def test_a_quote_without_an_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="a quote does not end"):
        read('Host "web1\n', tmp_path=tmp_path)


def test_tokens_are_expanded_and_an_unknown_one_is_an_error() -> None:
    assert expand("%h:%p 100%%", {"h": "web1", "p": "22"}) == "web1:22 100%"
    with pytest.raises(DeliveryError, match="%q"):
        expand("%q", {})


def test_a_token_is_not_expanded_twice() -> None:
    assert expand("%h", {"h": "%p", "p": "22"}) == "%p"


def test_a_match_runs_only_what_the_users_own_file_says(tmp_path: Path) -> None:
    ran: list[str] = []

    def run(command: str) -> bool:
        ran.append(command)
        return command.endswith("yes")

    config = tmp_path / "config"
    config.write_text(
        'Match host nobody exec "not reached"\n Port 1\n'
        'Match originalhost web1.example.net exec "test %h %p %r no"\n Port 2\n'
        'Match exec "test yes"\n Port 3\n'
    )
    found = resolve(asked(user="me"), config=config, run=run)
    assert (ran, found.port) == (["test web1.example.net 22 me no", "test yes"], 3)


def test_a_command_of_a_match_is_really_run_and_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_config, "EXEC_SECONDS", 0.3)
    assert ssh_config.run_match("true")
    assert not ssh_config.run_match("false")
    with pytest.raises(DeliveryError, match="did not end"):
        ssh_config.run_match("sleep 20 & sleep 20")


def test_a_criterion_that_is_not_understood_is_an_error_where_it_matters(tmp_path: Path) -> None:
    text = "Match host {} localnetwork 10.0.0.0/8\n Port 1\n"
    assert read(text.format("other"), tmp_path=tmp_path).port == 22
    with pytest.raises(DeliveryError) as refused:
        read(text.format("web1*"), tmp_path=tmp_path)
    assert refused.value.code == "M4314"
    assert "openssh" in (refused.value.help or "")


def test_files_that_include_each_other_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="include each other"):
        read(f"Include {tmp_path}/config\n", tmp_path=tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "writable", "missing"])
def test_a_file_that_is_none_or_not_the_users_own_is_an_error(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    config = home / ".ssh" / "config"
    if kind == "pipe":
        os.mkfifo(config)
    elif kind == "folder":
        config.mkdir()
    elif kind == "writable":
        config.write_text("User me\n")
        config.chmod(0o666)
    one = Asked(original="web1", user="me", home=home)
    if kind == "missing":
        assert resolve(one, config=None, system=None).values == {}
        with pytest.raises(DeliveryError, match="there is no"):
            resolve(one, config=config, system=None)
    else:
        with pytest.raises(DeliveryError):
            resolve(one, config=None, system=None)


# --- against ssh itself ---------------------------------------------------------------------------------------------

CONFIGS = {
    "blocks": "Host other !web1*\n Port 1\nHost web* !web2*\n Port 2\nHost *\n Port 3\n User last\n",
    "equals": "Port = 7\nUser=someone\nHost=web1*\n ConnectTimeout 3\n",
    "quotes": 'User "some one"\nHost "web1.example.net"\n HostKeyAlias "an alias"\n',
    "comments": "# one\n  # two\nPort 5 # three\nUser me#you\n",
    "match": 'Match host web1*,web9* !user root2\n Port 9\nMatch all\n User all\nMatch originalhost "x,web1.*"\n Compression yes\n',  # noqa: E501
    "negated": "Match !host web1*\n Port 1\nMatch !exec false\n Port 2\n",
    "final": "Host short.internal\n Port 8\nHost web1.example.net\n HostName short.internal\nMatch final all\n User f",
    "hostname": "Host web1.example.net\n HostName %h.internal\nMatch host *.internal\n Port 10\n",
    "proxy": "ProxyCommand nc  -x 'a b' %h %p\nProxyJump gate\n",
    "jump": "ProxyJump me@gate:22,[::1]:9\nProxyCommand never\n",
    "include": "Include {folder}/*.conf\nPort 11\n",
    "included in a block": "Host nobody\n Include {folder}/*.conf\nHost *\n Port 12\n",
    "identity": "IdentityFile ~/one\nIdentityFile ~/two\nIdentityFile ~/one\nCertificateFile ~/c\nIdentitiesOnly yes\n",
    "known": 'UserKnownHostsFile "/tmp/a b" /tmp/c\nGlobalKnownHostsFile none\nHashKnownHosts yes\n',
}
COMPARED = (
    "hostname", "port", "user", "hostkeyalias", "connecttimeout", "compression", "proxyjump", "identityfile",
    "certificatefile", "identitiesonly", "userknownhostsfile", "hashknownhosts",
)  # fmt: skip


@pytest.mark.peer("ssh")
@pytest.mark.parametrize("name", CONFIGS)
def test_it_reads_what_ssh_reads(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "1.conf").write_text("User included\nHost web1*\n Compression yes\n")
    (folder / "2.conf").write_text("Port 2020\n")
    text = CONFIGS[name].replace("{folder}", str(folder))
    found = read(text, tmp_path=tmp_path)
    said = subprocess.run(
        [str(find_peer("ssh")), "-G", "-F", str(tmp_path / "config"), "web1.example.net"],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        theirs.setdefault(keyword, []).append(value)
    assert theirs["hostname"] == [found.hostname]
    assert theirs["port"] == [str(found.port)]
    assert theirs["user"] == [found.login]
    for keyword in COMPARED[3:]:
        ours = found.values.get(keyword)
        if ours is None or (keyword == "proxyjump" and ours == ("none",)):
            continue
        assert " ".join(theirs[keyword]) == " ".join(ours), keyword
    if found.says("proxycommand", "none") != "none":
        assert [expand(found.values["proxycommand"][0], found.tokens())] == theirs["proxycommand"] or [
            found.values["proxycommand"][0]
        ] == theirs["proxycommand"]


# --- how a host is reached ------------------------------------------------------------------------------------------


def options(tmp_path: Path, text: str, **environ: str) -> SshOptions:
    (tmp_path / "config").write_text(text)
    return SshOptions(config=tmp_path / "config", environ={"HOME": str(tmp_path), **environ})


HOST = SshHost(name="web1", address="web1.example.net")


@pytest.mark.parametrize(
    "directive",
    [
        "PKCS11Provider /usr/lib/x.so",
        "SecurityKeyProvider /usr/lib/x.so",
        "KnownHostsCommand /bin/true",
        "RevokedHostKeys /etc/x",
        "CanonicalizeHostname yes",
        "ProxyUseFdpass yes",
        "BindInterface eth0",
        "PubkeyAuthentication no",
        "PreferredAuthentications password,keyboard-interactive",
    ],
)
def test_what_is_not_built_is_an_error_that_names_it_and_the_way_out(tmp_path: Path, directive: str) -> None:
    with pytest.raises(DeliveryError) as refused:
        reach_host(HOST, options(tmp_path, directive))
    assert refused.value.code == "M4314"
    assert directive.split(maxsplit=1)[0].lower() in refused.value.message
    assert "MTLSCTL_SSH_TRANSPORT=openssh" in (refused.value.help or "")


def test_what_changes_nothing_is_no_error(tmp_path: Path) -> None:
    text = "PKCS11Provider none\nGSSAPIAuthentication yes\nForwardAgent yes\nControlMaster auto\nNoSuchDirective 1\n"
    reach = reach_host(HOST, options(tmp_path, text))
    assert "GSSAPI" in reach.notes[0]


def test_the_inventory_wins_and_its_key_is_the_only_one(tmp_path: Path) -> None:
    host = SshHost(
        name="web1", address="web1.example.net", port=2222, user="deploy", identity_file="~/.ssh/key", jump="gate:2"
    )
    reach = reach_host(host, options(tmp_path, "Port 1\nUser other\nIdentityFile ~/a\nProxyCommand never\n"))
    assert (reach.port, reach.user, reach.identity_files) == (2222, "deploy", (tmp_path / ".ssh/key",))
    assert (reach.identities_only, reach.proxy_command) == (True, None)
    assert [str(one) for one in reach.jumps] == ["gate:2"]


def test_a_port_of_the_configuration_counts_where_the_inventory_says_none(tmp_path: Path) -> None:
    assert reach_host(HOST, options(tmp_path, "Port 2222")).port == 2222


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ("web1.example.net",)),
        ("Port 2222", ("[web1.example.net]:2222", "web1.example.net")),
        ("HostKeyAlias The-Web\nPort 2222", ("the-web",)),
        ("HostName WEB9.internal", ("web9.internal",)),
    ],
)
def test_the_names_of_a_host_in_known_hosts_are_those_of_ssh(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    assert reach_host(HOST, options(tmp_path, text)).known_as == names


@pytest.mark.parametrize(
    ("text", "environ", "agent"),
    [
        ("", {"SSH_AUTH_SOCK": "/run/agent"}, "/run/agent"),
        ("", {}, None),
        ("IdentityAgent none", {"SSH_AUTH_SOCK": "/run/agent"}, None),
        ("IdentityAgent SSH_AUTH_SOCK", {"SSH_AUTH_SOCK": "/run/agent"}, "/run/agent"),
        ("IdentityAgent $MINE", {"MINE": "/run/mine"}, "/run/mine"),
        ("IdentityAgent /run/%r", {}, "/run/me"),
    ],
)
def test_the_agent_is_the_one_that_ssh_would_ask(
    tmp_path: Path, text: str, environ: dict[str, str], agent: str | None
) -> None:
    reach = reach_host(SshHost(name="web1", address="web1", user="me"), options(tmp_path, text, **environ))
    assert reach.agent == (None if agent is None else Path(agent))


def test_a_host_name_of_the_configuration_that_is_no_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="cannot be"):
        reach_host(HOST, options(tmp_path, "HostName -oProxyCommand=x"))


@pytest.mark.parametrize("text", ["me@gate:22", "ssh://me@gate:22/", "[::1]:9", "gate"])
def test_a_jump_host_is_read(text: str) -> None:
    assert str(parse_hop(text)).endswith(text.removeprefix("ssh://").rstrip("/"))


@pytest.mark.parametrize(
    "text", ["", "-x", "me@-x", "-l@gate", "gate:0", "gate:99999", "gate;id", "a,b", "a b", "$(id)"]
)
def test_what_is_no_jump_host_is_refused(text: str) -> None:
    with pytest.raises(DeliveryError):
        parse_hop(text)


def test_a_jump_host_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    reach = reach_hop(parse_hop("gate"), options(tmp_path, "Host gate\n HostName 192.0.2.1\n User jumper\n Port 222\n"))
    assert (reach.hostname, reach.user, reach.port) == ("192.0.2.1", "jumper", 222)


@pytest.mark.parametrize("address", ["-x", "a b", "a\nb", "a;b", "$(x)", "`x`", "a|b", "", "a'b", "a\0b", "é"])
def test_an_address_that_is_none_is_refused_whoever_let_it_through(address: str) -> None:
    with pytest.raises(DeliveryError):
        check_words(SshHost(name="web1", address=address))


def test_programs_get_none_of_our_secrets(tmp_path: Path) -> None:
    given = options(tmp_path, "", MTLSCTL_SECRET_X="s", SSH_AUTH_SOCK="/run/a").for_programs
    assert given == {"HOME": str(tmp_path), "SSH_AUTH_SOCK": "/run/a"}


def test_the_operator_chooses_the_transport_and_a_slip_is_an_error() -> None:
    assert SshOptions.from_environment({"MTLSCTL_SSH_TRANSPORT": "openssh"}).transport == "openssh"
    assert SshOptions.from_environment({}).transport == "paramiko"
    with pytest.raises(DeliveryError, match="openshh"):
        SshOptions.from_environment({"MTLSCTL_SSH_TRANSPORT": "openshh"})
