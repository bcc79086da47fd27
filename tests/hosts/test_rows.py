"""The README's matrix has the rows of this suite: the classes of the modules beside this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventbridge.testing import RULES, HostConformance, matrix
from tests.support.command import ROOT

THREADS = {None: ("tests-thread", "own-thread"), True: ("own-thread",), False: ("tests-thread",)}


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each loop of the suite, and what it is run as, whichever of its tests are run now."""
    rows: dict[str, matrix.Row] = {"qt, PyQt6": matrix.Row("qt, PyQt6")}  # test_pyqt's, in a process of its own
    for cls in classes(request):
        for loop in ["qt, PySide6", "qt, PyQt6"] if cls.loop.startswith("qt") else [cls.loop]:
            found = rows.setdefault(loop, matrix.Row(loop)).cells.setdefault("", [])
            found.extend({"name": cls.__name__.removeprefix("Test"), "thread": one} for one in THREADS[cls.own_thread])
    return {loop: row.configurations() for loop, row in rows.items()}


def classes(request: pytest.FixtureRequest) -> list[type[HostConformance]]:
    """Return the conformance classes of this folder, as pytest finds them."""
    (folder,) = [node for node in request.node.listchain() if node.path == Path(__file__).parent]
    modules = [node.obj for node in folder.collect() if isinstance(node, pytest.Module)]
    return [
        cls
        for module in modules
        for name, cls in vars(module).items()
        if name.startswith("Test") and issubclass(cls, HostConformance)
    ]


def test_every_row_of_ours_has_a_name_and_there_are_not_too_many(rows: dict[str, str]) -> None:
    assert "" not in rows
    assert len(rows) <= 20


def test_the_readmes_table_has_what_the_suite_has(rows: dict[str, str]) -> None:
    """The same loops, run as the same, and held to the same rules; that all are kept is for the run to say."""
    written = matrix.read_back((ROOT / "README.md").read_text())
    assert {loop: run_as for loop, (run_as, _) in written.items()} == rows
    for loop, (_, cells) in written.items():
        assert len(cells) == 3, loop
        assert all(cell.startswith(matrix.NOTHING) or f" of {len(RULES)}, " in cell for cell in cells), loop
