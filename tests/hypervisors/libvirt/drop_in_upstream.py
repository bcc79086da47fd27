"""libvirt-python's own test of its libvirtaio, fetched from its source distribution and never kept in this tree.

Only the import is changed: ours takes the place of theirs.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

THEIRS = "import libvirtaio\n"
OURS = "from eventbridge.adapters.hypervisors import libvirtaio\n"
FILES = ("test_aio.py", "eventmock.py")


def source_distribution(cache: Path) -> Path:
    """libvirt-python's, of the installed version; downloaded once into ``cache``.  Where it cannot be, the test
    fails and says what to do.
    """
    version = importlib.metadata.version("libvirt-python")
    kept = cache / f"libvirt-python-{version}.tar.gz"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _download(f"libvirt-python=={version}", Path(scratch), kept)
            os.replace(next(Path(scratch).glob("*.tar.gz")), kept)  # whole or not at all: other processes look too
    return kept


def _download(requirement: str, into: Path, kept: Path) -> None:
    only_the_source = ("--no-deps", "--no-binary", ":all:", "--quiet", "--dest", str(into))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download")
    done = subprocess.run([*pip, *only_the_source, requirement], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(
            f"libvirt-python's own test is in its source distribution, which pip could not download: "
            f"{done.stderr.strip()[-500:]}; run once with the network, or put {requirement}'s .tar.gz at {kept}",
            pytrace=False,
        )


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
