"""The layers of the code: what each part may import, and what no file imports in a circle."""

from __future__ import annotations

import pytest

from tests.structure.imports import circles, edges_within, imports, modules
from tests.support.command import ROOT

FILES = modules(ROOT)
IMPORTS = imports(FILES)

LAYERS = (
    ("errors",),
    ("plugins",),
    ("core",),
    ("diagnosis", "jobs"),
    ("hypervisor",),
    ("bridge", "adapters"),
    ("connection",),
    ("testing",),
    ("stress", "benchmark"),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a part imports from its own layer and those below."""

FAMILIES = ("libvirt", "qmp", "sim", "xen")

STILL_IN_CIRCLES = ("connection", "adapters.hypervisors.sim", "stress")
"""Parts in which files import each other in circles still."""


def floor(module: str) -> int:
    """Return the layer of a module; that of the package itself is the highest."""
    part = [*module.split("."), ""][1]
    return next((number for number, parts in enumerate(LAYERS) if part in parts), len(LAYERS))


def test_every_module_has_a_layer() -> None:
    unplaced = [module for module in FILES if floor(module) == len(LAYERS)]
    assert unplaced == ["eventbridge"]


def test_no_module_imports_upwards() -> None:
    upward = [(module, other) for module in FILES for other in IMPORTS[module] if floor(other) > floor(module)]
    assert upward == []


def test_files_import_each_other_in_no_circle() -> None:
    for group in circles(IMPORTS):
        assert all(module.startswith(tuple(f"eventbridge.{part}." for part in STILL_IN_CIRCLES)) for module in group), (
            edges_within(IMPORTS, group)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_of_drivers_imports_another(family: str) -> None:
    place = "eventbridge.adapters.hypervisors."
    others = tuple(f"{place}{other}" for other in FAMILIES if other != family)
    foreign = [
        (module, other)
        for module in FILES
        if module.startswith(f"{place}{family}")
        for other in IMPORTS[module]
        if other.startswith(others)
    ]
    assert [found for found in foreign if not found[0].startswith(f"{place}libvirtaio")] == []


def test_a_circle_is_found_however_it_is_hidden() -> None:
    """The finder is not blind: three modules, of which the first imports itself by way of the others."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
