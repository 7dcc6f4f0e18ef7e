"""The limits of a file, and the pure parser beside the C one."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import yaml

from mtlsctl.inventory import codes, source
from mtlsctl.inventory.problems import Problems, Sources
from tests.unit.inventory.test_cases import CASES, NAMES, said

if TYPE_CHECKING:
    from pathlib import Path


def codes_of(data: bytes, folder: Path) -> list[str]:
    path = folder / "file.yaml"
    path.write_bytes(data)
    problems = Problems(Sources())
    source.read_file(path, "file.yaml", problems)
    return [one.code for one in problems.ordered]


def test_a_file_of_eight_mebibytes_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    largest = b"a: b\n#".ljust(source.MAX_BYTES, b"x")
    assert codes_of(largest, tmp_path) == []
    assert codes_of(largest + b"x", tmp_path) == [codes.TOO_LARGE]


def test_a_file_of_too_many_nodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_NODES", 10)
    assert codes_of(b"a: [1, 2, 3, 4, 5, 6, 7]\n", tmp_path) == []
    assert codes_of(b"a: [1, 2, 3, 4, 5, 6, 7, 8]\n", tmp_path) == [codes.TOO_MANY_NODES]


def test_the_deepest_nesting_is_read_and_one_more_is_refused(tmp_path: Path) -> None:
    assert codes_of(b"a: " + b"[" * 31 + b"]" * 31, tmp_path) == []
    assert codes_of(b"a: " + b"[" * 32 + b"]" * 32, tmp_path) == [codes.TOO_DEEP]


def test_the_longest_value_is_read_and_one_more_byte_is_refused(tmp_path: Path) -> None:
    assert codes_of(b"a: " + b"x" * 4096, tmp_path) == []
    assert codes_of(b"a: " + b"x" * 4097, tmp_path) == [codes.SCALAR_TOO_LONG]
    assert codes_of(("a: " + "é" * 2049).encode(), tmp_path) == [codes.SCALAR_TOO_LONG]


def test_an_alias_bomb_is_refused_before_it_costs_anything(tmp_path: Path) -> None:
    bomb = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9))
    tracemalloc.start()
    began = time.process_time()
    assert codes_of(bomb, tmp_path) == [codes.ALIAS]
    assert time.process_time() - began < 0.2
    assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, "- " * 100_000, "? " * 100_000])
def test_deep_openings_are_refused_at_once(text: str, tmp_path: Path) -> None:
    began = time.process_time()
    assert len(codes_of(text.encode(), tmp_path)) == 1
    assert time.process_time() - began < 1


def test_a_file_of_nothing_but_errors_is_cut_off(tmp_path: Path) -> None:
    assert len(codes_of(b"a: b\n" * 5000, tmp_path)) == 1000


def test_the_character_that_stands_for_a_refused_one_is_refused_itself(tmp_path: Path) -> None:
    for text in ("a: b\ufdd0\n", 'a: "b\\uFDD0"\n', "a\ufdd0: b\n"):
        assert codes_of(text.encode(), tmp_path) == [codes.UNSEEN_CHARACTER]


def test_a_tree_with_problems_is_what_the_file_would_be_without_them(tmp_path: Path) -> None:
    text = '\ufeff%YAML 1.1\n---\na\u200b: b\x07c\n\t\nd: [e, "f\\ng", h]\nd: i\nj: "k\\nl"\n'
    (tmp_path / "file.yaml").write_bytes(text.encode())
    tree = source.read_file(tmp_path / "file.yaml", "file.yaml", Problems(Sources()))
    assert tree == {"a": "bc", "d": ["e", "h"]}
    assert tree.lost == {"j"}
    assert isinstance(tree["d"], source.Seq)
    assert tree["d"].is_holed


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    problems = Problems(Sources())
    assert source.read_file(tmp_path, "folder", problems) is None
    assert [one.code for one in problems.ordered] == [codes.UNREADABLE]


def test_reading_leaves_the_collector_as_it_was() -> None:
    said("ok-short-form")
    assert gc.isenabled()
    gc.disable()
    try:
        said("ok-short-form")
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("name", NAMES)
def test_the_pure_parser_says_the_same_as_the_c_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (CASES / f"{name}.expected").read_text(encoding="utf-8")
    monkeypatch.delattr(yaml, "CSafeLoader")
    if expected.startswith(codes.SYNTAX):
        # The two parsers word syntax errors differently, and stop a character apart; both refuse.
        assert said(name).startswith(codes.SYNTAX)
    else:
        assert expected == said(name)


def test_an_escape_that_is_no_character_is_a_syntax_error_to_the_pure_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert codes_of(b'a: "\\UFFFFFFFF"\n', tmp_path) == [codes.SYNTAX]
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert codes_of(b'a: "\\UFFFFFFFF"\n', tmp_path) == [codes.SYNTAX]
