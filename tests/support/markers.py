"""Which tests need a real hypervisor, said by markers and held to them.

A marker is put on a test by its place (`BY_PLACE`), or by ``pytestmark`` in a module elsewhere.  What starts something
real calls `needs`, which fails a test that has not the marker: so ``-m "not libvirt"`` and ``make quick`` start nothing
that they should not.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support import wanted

TESTS = Path(__file__).parents[1]

BY_PLACE = {
    "hypervisors/libvirt": "libvirt",
    "hypervisors/qmp": "qemu",
    "hypervisors/xen": "xen",
    "hypervisors/libvirt/test_libvirt_calls_qemu.py": "qemu",
    "hypervisors/libvirt/test_libvirt_embed.py": "qemu",
    "moving/test_grand_tour.py": "libvirt",
    "moving/test_transfers.py": "libvirt",
    "e2e/test_watch.py": "libvirt",
}
"""What is below these folders, or in these files, which import the library and cannot do so where it is missing."""

_current: list[pytest.Item] = []


def mark(items: list[pytest.Item]) -> None:
    """Give each test the markers of its place."""
    for item in items:
        for marker in _markers_of(item.path):
            item.add_marker(marker)


def absent(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return what is collected in the place of a file or a folder that imports libvirt, where libvirt-python is not
    installed: one skip.  None where it is installed, or not needed.
    """
    if "libvirt" in _markers_of(path) and importlib.util.find_spec("libvirt") is None:
        return Absent.from_parent(parent, path=path)
    return None


class Absent(pytest.Collector):
    """A file or a folder of tests that cannot be imported here."""

    def collect(self) -> list[pytest.Item]:
        wanted.missing_module("libvirt", "libvirt-python cannot be imported")


def _markers_of(path: Path) -> set[str]:
    places = {path, *path.parents}
    return {marker for place, marker in BY_PLACE.items() if TESTS / place in places}


def runs(item: pytest.Item) -> None:
    """Say which test it is that `needs` is asked for from now on."""
    _current[:] = [item]


def needs(marker: str) -> None:
    """Fail the test that runs here unless it has the marker.  Outside of tests, in a benchmark, nothing is asked."""
    if _current and _current[0].get_closest_marker(marker) is None:
        pytest.fail(f"this test starts something real: it needs pytest.mark.{marker}", pytrace=False)
