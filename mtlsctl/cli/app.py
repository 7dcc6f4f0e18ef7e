"""The typer app, the one error handler and the exit codes."""

# ruff: noqa: PLC0415  what is slow is imported where it is used

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from mtlsctl.errors import MtlsctlError, Terminated, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    import typer

COMMANDS = (
    "init",
    "validate",
    "plan",
    "apply",
    "verify",
    "status",
    "inspect",
    "hosts",
    "show",
    "rollback",
    "state",
    "journal",
    "runtimes",
    "schema",
    "explain",
    "completion",
)

INTERRUPTED, TERMINATED = 130, 143
GRACE_SECONDS = 20
"""After a SIGTERM, for what is under way on the hosts; whoever sent it may well kill soon after."""
_COMPLETION = "_MTLSCTL_COMPLETE"
_WITH_VALUE = frozenset({"-C", "--chdir", "-i", "--inventory", "--state", "-o", "--format", "--color"})
_ALONE = frozenset({"-q", "--quiet", "-v", "-vv", "-vvv", "--verbose", "--no-input", "--ascii"})


def run(arguments: Sequence[str]) -> int:
    """Parse and run one command; gives the exit code, never a traceback."""
    _harden()
    try:
        return _parsed(_ordered(arguments))()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Run the same command again: it goes on where it stopped.\n")
        return INTERRUPTED
    except Terminated:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stderr.write("Terminated. Run the same command again: it goes on where it stopped.\n")
        return TERMINATED
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001  the one handler
        from mtlsctl.cli.failure import report

        return report(error, arguments)


def _harden() -> None:
    """No core file may ever hold a key, and a signal to stop runs the clean-up that is on the way."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """The first one lets what has begun come to its end; another one, or the end of its time, does not."""
    signal.signal(signal.SIGALRM, _terminate)
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
    raise Terminated


def _reader_gone() -> int:
    """Nobody reads on: say nothing more, also not at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _ordered(arguments: Sequence[str]) -> list[str]:
    """Shared flags before the command go behind it: their order means nothing."""
    front: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name, equals, _ = rest[0].partition("=")
        if name in _ALONE or (name in _WITH_VALUE and equals):
            front.append(rest.pop(0))
        elif name in _WITH_VALUE and len(rest) > 1:
            front += [rest.pop(0), rest.pop(0)]
        else:
            break
    if not rest or rest[0].startswith("-"):
        return [*front, *rest]
    return [rest[0], *_behind(rest[1:], front)]


def _behind(rest: list[str], front: list[str]) -> list[str]:
    """At the end, but before a `--` that ends the flags."""
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *front, *rest[end:]]


def _parsed(arguments: list[str]) -> Callable[[], int]:
    import typer

    usage_errors: tuple[type[Exception], ...] = typer.BadParameter.__mro__[1:3]  # wherever this typer keeps them
    try:
        answer = _entry(_wanted(arguments))(args=arguments, prog_name="mtlsctl", standalone_mode=False)
    except usage_errors as error:
        raise _usage(error, arguments) from None
    if isinstance(answer, int):
        return lambda: answer
    if not callable(answer):
        raise UsageError("no command", code="M9101", help=f"commands: {', '.join(COMMANDS)}")
    return answer


def _usage(error: Exception, arguments: Sequence[str]) -> UsageError:
    message = str(getattr(error, "message", "") or error).rstrip(".")
    named = f"mtlsctl {arguments[0]} --help" if arguments and arguments[0] in COMMANDS else "mtlsctl --help"
    return UsageError(message[:1].lower() + message[1:], code="M9101", help=named)


def _wanted(arguments: Sequence[str]) -> Sequence[str]:
    """Only the command that was asked for is loaded; all of them when a shell wants to complete."""
    if _COMPLETION in os.environ:
        return COMMANDS
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("no command", code="M9101", help=f"commands: {', '.join(COMMANDS)}")
    if arguments[0] not in COMMANDS:
        raise UsageError(f"unknown command `{arguments[0]}`", code="M9101", help=_near(arguments[0]))
    return arguments[:1]


def _near(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    return f"did you mean `{near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"


def _entry(names: Sequence[str]) -> Callable[..., object]:
    import typer

    return typer.main.get_command(build_app(names))


def build_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The app with the named commands; each module gives `register(app)`."""
    import typer

    app = typer.Typer(
        name="mtlsctl",
        add_completion=_COMPLETION in os.environ,  # what it adds is for shells that ask, not for people
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names:
        import_module(f"mtlsctl.cli.commands.{name}").register(app)
    return app


def _root() -> None:
    """Declarative mutual TLS: say who may call whom; plan it, apply it, prove it."""


def exit_code_of(error: BaseException) -> int:
    """Of what was raised on purpose its own; 1 where the system refused; 70 for what nobody foresaw."""
    match error:
        case MtlsctlError():
            return error.exit_code
        case OSError():
            return 1
        case _:
            return 70
