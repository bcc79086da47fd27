"""What Xen is booted with: made from Debian's packages, and kept in the cache until one of its inputs changes.

Three files: ``xen`` and ``vmlinux``, started as they are, and ``dom0.cpio``, domain 0's memory disk: Debian's files,
pytest out of the environment that runs this, and two guests, the small one of ``guest/`` and a Linux.  The project
itself is laid over it at each run (`overlay`), so that changing it costs nothing here.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import cache, debs

from . import cpio, kernel, layout

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
SITE = "usr/local/lib/python3.11/dist-packages"  # where Debian's python3.11 looks by itself
DISTRIBUTIONS = ("pytest", "pluggy", "iniconfig", "packaging", "pytest-timeout", "pygments")

GUEST_SOURCES = ("start.S", "guest.c")
GUEST_FLAGS = """\
-std=c17 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -no-pie -mno-red-zone
-mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -nostdlib -static -s -Wl,-T,guest.lds
-Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096""".split()

KEPT = 3
"""So many states of the images."""
_NAME, _KEY = "e2e-xen-", 10  # and the length of a key, in hexadecimal digits

_DOMAIN0_MAGIC = 3495
"""What byte code of Python 3.11 begins with, as a little-endian number (importlib/_bootstrap_external.py)."""


class Images(NamedTuple):
    """Paths of what a machine boots."""

    xen: Path
    linux: Path
    domain0: Path


class NotBuilt(Exception):
    """An image could not be made; one line that says why."""


def images() -> Images:
    """Fetched and built, or found in the cache.  Raises NotBuilt or `debs.NotAvailable`."""
    packages = debs.unpacked(*layout.XEN_PACKAGES.format(debs.xen_version()).split())
    kernel_debs = debs.unpacked(_kernel_package())

    def build(place: Path) -> None:
        try:
            _build(packages, kernel_debs, place)
        except (layout.Missing, kernel.NotAKernel) as error:
            raise NotBuilt(str(error)) from None

    place = cache.once(f"{_NAME}{_key(packages.name, kernel_debs.name)}", build)
    _forget_old(place)
    return Images(place / "xen", place / "vmlinux", place / "dom0.cpio")


@functools.cache
def compiler() -> str | None:
    """A Python of this machine whose byte code domain 0's can read; None: it compiles for itself, which is slower."""
    if int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little") == _DOMAIN0_MAGIC:
        return sys.executable
    found = shutil.which("python3.11")
    works = found is not None and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
    return found if works else None  # a version manager's stand-in is found, and refuses


def overlay(command: str, target: Path) -> None:
    """The project as it is now, and what domain 0 shall run: an archive to follow ``dom0.cpio``."""
    stage = target.with_suffix(".tree")
    project = stage / "e2e"
    for name in ("eventbridge", "adapters", "tests/support", str(HERE.relative_to(PROJECT))):
        layout.copy_tree(PROJECT / name, project / name)
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/support/four_domains.py"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, project / name)
    (stage / "e2e-command").write_text(f"{command}\n")
    _byte_compile(stage, "e2e")
    _archive(stage, target)
    shutil.rmtree(stage)


def _forget_old(place: Path) -> None:
    """Images are large: those of the last few states of their inputs are enough."""
    os.utime(place)
    kept = sorted(cache.directory().glob(f"{_NAME}{'[0-9a-f]' * _KEY}"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _kernel_package() -> str:
    """Debian's current kernel: linux-image-amd64 is nothing but a dependency on it."""
    said = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if found is None:
        raise NotBuilt("apt offers no linux-image-amd64, domain 0's kernel: run apt-get update (a Debian is needed)")
    return found[1]


def _key(*packages: str) -> str:
    """Of everything that the images are made of."""
    digest = hashlib.sha256("\0".join(packages).encode())
    for name in DISTRIBUTIONS:
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    digest.update(b"compiled" if compiler() else b"")
    for source in _sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:_KEY]


def _sources() -> Iterator[Path]:
    yield from sorted(HERE.glob("guest/*"))
    yield from (HERE / name for name in ("images.py", "layout.py", "kernel.py", "cpio.py", "init.sh", "linux_init.sh"))


def _build(packages: Path, kernel_debs: Path, place: Path) -> None:
    (place / "xen").write_bytes(gzip.decompress(layout.one(packages, "boot/xen-*-amd64.gz").read_bytes()))
    linux = kernel.vmlinux(layout.one(kernel_debs, "boot/vmlinuz-*").read_bytes())
    (place / "vmlinux").write_bytes(linux)
    root = place / "root"
    layout.domain0(packages, kernel_debs, root)
    _executable(HERE / "init.sh", root / "init")
    _pytest(root / SITE)
    for directory in ("usr/lib/python3.11", SITE):
        _byte_compile(root, directory)
    _guests(packages, linux, root / "guests", place)
    _archive(root, place / "dom0.cpio")
    shutil.rmtree(root)


def _guests(packages: Path, linux: bytes, directory: Path, scratch: Path) -> None:
    directory.mkdir()
    compile_guest(directory / "small")
    # gzip, which libxl undoes faster than the xz it came in; in full it would take a quarter of domain 0's memory.
    (directory / "linux").write_bytes(gzip.compress(linux, compresslevel=1, mtime=0))
    root = scratch / "linux-root"
    for name in ("bin", "proc", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy(layout.one(packages, "bin/busybox"), root / "bin")
    (root / "bin/sh").symlink_to("busybox")
    _executable(HERE / "linux_init.sh", root / "init")
    _archive(root, directory / "linux.cpio")
    shutil.rmtree(root)


def compile_guest(target: Path) -> None:
    """The small guest, with gcc."""
    command = ["gcc", *GUEST_FLAGS, "-o", str(target), *GUEST_SOURCES]
    _must(command, f"gcc does not compile the guest in {HERE / 'guest'}", HERE / "guest")


def _pytest(site: Path) -> None:
    """What pytest needs, as it is installed here; of pygments only the lexers that pytest imports."""
    for name in DISTRIBUTIONS:
        for file in importlib.metadata.files(name) or ():
            if file.suffix == ".pyc" or ".." in file.parts or _is_spare_lexer(file.parts):
                continue
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)


def _is_spare_lexer(parts: tuple[str, ...]) -> bool:
    wanted = ("__init__.py", "_mapping.py", "diff.py", "python.py")
    return parts[:2] in (("pygments", "lexers"), ("pygments", "styles")) and parts[-1] not in wanted


def _byte_compile(root: Path, directory: str) -> None:
    """Ahead, for domain 0's CPU is an emulated one.  ``unchecked-hash``: its files have no times."""
    python = compiler()
    if python is None:
        return
    command = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    _must([*command, "-s", str(root), "-p", "/", str(root / directory)], f"{python} does not compile {directory}")


def _must(command: list[str], failure: str, directory: Path | None = None) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotBuilt(f"{failure}: {' '.join((done.stdout + done.stderr).split())}")


def _executable(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _archive(tree: Path, target: Path) -> None:
    with open(target, "wb") as stream:
        archive = cpio.Archive(stream)
        archive.tree(tree)
        archive.close()
