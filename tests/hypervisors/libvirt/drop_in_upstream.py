"""libvirt-python's own test of its libvirtaio, fetched from its source distribution and never kept in this tree.

Only the import is changed: ours takes the place of theirs.
"""

from __future__ import annotations

import ast
import tarfile
from pathlib import Path

THEIRS = "import libvirtaio\n"
OURS = "from eventbridge.adapters.hypervisors import libvirtaio\n"
FILES = ("test_aio.py", "eventmock.py")


def unpack(distribution: Path, into: Path) -> list[str]:
    """Write the test, with its import changed, and what it needs; returns the names of its tests for unittest."""
    with tarfile.open(distribution) as archive:
        for member in archive.getmembers():
            name = Path(member.name)
            if name.parent.name == "tests" and name.name in FILES:
                file = archive.extractfile(member)
                assert file is not None
                (into / name.name).write_bytes(file.read())
    test = into / FILES[0]
    text = test.read_text()
    assert text.count(THEIRS) == 1, "the import is not where it was"
    test.write_text(text.replace(THEIRS, OURS))
    return [
        f"{test.stem}.{case.name}.{method.name}"
        for case in ast.parse(text).body
        if isinstance(case, ast.ClassDef)
        for method in case.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
    ]
