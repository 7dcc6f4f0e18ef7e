"""jinja2 with nothing in it but the documented variables, the quoting filters and a strict `finalize`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jinja2 import DictLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mtlsctl.errors import RuntimeFolderError
from mtlsctl.model.diagnostic import Diagnostic, Span
from mtlsctl.render import codes
from mtlsctl.render.quoting import FILTERS, Quoted, Unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtlsctl.render.catalog import RuntimeFolder

Sources = tuple[tuple[str, str], ...]
"""Template names and their text, sorted."""


class UnquotedValue(TypeError):
    """A template wrote something that passed no quoting filter."""


def finalize(value: object) -> object:
    """What may reach a file from `{{ }}`: a quoted word or a number. Everything else raises UnquotedValue."""
    if isinstance(value, Quoted) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UnquotedValue(f"a {type(value).__name__} passed no quoting filter")


@cache
def environment(templates: Sources) -> ImmutableSandboxedEnvironment:
    """The environment of one folder's templates; each is compiled once in a process."""
    made = ImmutableSandboxedEnvironment(
        loader=DictLoader(dict(templates)),
        undefined=StrictUndefined,
        finalize=finalize,
        autoescape=False,  # HTML escaping is wrong in every target, and `finalize` is stricter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.globals.clear()
    made.filters = dict(FILTERS)
    return made


def render(folder: RuntimeFolder, template: str, variables: Mapping[str, object]) -> bytes:
    """One template's text in UTF-8; raises Unwritable for a value, RuntimeFolderError for the template's own faults."""
    try:
        text = environment(folder.templates).get_template(template).render(variables)
    except Unwritable:
        raise
    except UnquotedValue as error:
        raise _failed(folder, template, codes.UNQUOTED, error) from None
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise _failed(folder, template, codes.TEMPLATE_FAILED, error) from None
    return text.encode()


def _failed(folder: RuntimeFolder, template: str, code: str, error: Exception) -> RuntimeFolderError:
    span = Span(str(folder.path / template), _line_of(error, template), 1, 1)
    return RuntimeFolderError([Diagnostic(code=code, message=str(error), span=span)])


def _line_of(error: Exception, template: str) -> int:
    """The template's line, which jinja2 writes into the traceback."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename in (template, "<template>"):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
