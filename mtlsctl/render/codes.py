"""The diagnostic codes of this floor, with what each means; `explain` prints them."""

from __future__ import annotations

from types import MappingProxyType

UNWRITABLE = "M2301"
PORT_CONFLICT = "M2302"
SETTING = "M2303"

MANIFEST = "M2310"
TEMPLATE_MISSING = "M2311"
TEMPLATE_UNUSED = "M2312"
TEMPLATE_SYNTAX = "M2313"
VARIABLE_UNKNOWN = "M2314"
README_MISSING = "M2315"
CASES_MISSING = "M2316"
CASE_DIFFERS = "M2317"
UNQUOTED = "M2318"
RUNTIME_TWICE = "M2319"
TEMPLATE_FAILED = "M2320"

STALE_TEMPLATES = "M7221"
EMPTY_BUNDLE = "M7222"
ANCHOR_MISSING = "M7223"

MEANINGS = MappingProxyType(
    {
        UNWRITABLE: "A value of the inventory cannot be written into a runtime's file without changing its meaning.",
        PORT_CONFLICT: "Services that share a port of one program ask for things that cannot both be had there.",
        SETTING: "A setting cannot be rendered for this service.",
        MANIFEST: "A runtime folder's manifest cannot be read as the language of manifests says.",
        TEMPLATE_MISSING: "A manifest names a template that its folder does not hold.",
        TEMPLATE_UNUSED: "A runtime folder holds a template that neither the manifest nor another template names.",
        TEMPLATE_SYNTAX: "A template is not well formed, or uses a filter that does not exist.",
        VARIABLE_UNKNOWN: "A template uses a variable that is not documented.",
        README_MISSING: "A runtime folder has no README.md, so nobody is told how to use it.",
        CASES_MISSING: "A runtime folder has no cases, so nothing shows what its templates give.",
        CASE_DIFFERS: "A runtime folder's templates give something else than its case expects.",
        UNQUOTED: "A template writes a value that passed no quoting filter of the target's syntax.",
        RUNTIME_TWICE: "Two runtime folders have the same name.",
        TEMPLATE_FAILED: "A template failed while it was rendered.",
        STALE_TEMPLATES: "The templates on disk are not those that the plan was made with; plan again.",
        EMPTY_BUNDLE: "A release would hold a trust bundle that is empty, or that does not fit its callers.",
        ANCHOR_MISSING: "A release trusts a CA whose certificate was not handed to the renderer.",
    }
)
