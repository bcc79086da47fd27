"""What Xen is booted with: made from Debian's packages, and kept in the cache until one of its inputs changes.

Three files: ``xen`` and ``vmlinux``, started as they are, and ``dom0.cpio``, domain 0's memory disk: Debian's files,
pytest out of the environment that runs this, and two guests, the small one of ``guest/`` and a Linux.  The project
itself is laid over it at each run (`overlay`), so that changing it costs nothing here.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.e2e.xen import cpio, kernel, layout
from tests.support import cache, debs
from tests.support.apt import Apt

HERE = Path(__file__).parent
PROJECT = HERE.parents[2]
SITE = "usr/local/lib/{}/dist-packages"  # where Debian's Python looks by itself
DISTRIBUTIONS = ("pytest", "pluggy", "iniconfig", "packaging", "pytest-timeout", "pygments")

GUEST_SOURCES = ("start.S", "guest.c")
GUEST_FLAGS = """\
-std=c17 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -no-pie -mno-red-zone
-mgeneral-regs-only -fcf-protection=none -fno-asynchronous-unwind-tables -nostdlib -static -s -Wl,-T,guest.lds
-Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,max-page-size=4096""".split()

KEPT = 4
"""So many states of the images."""
_NAME, _KEY = "e2e-xen-", 10  # and the length of a key, in hexadecimal digits


class Images(NamedTuple):
    """Paths of what a machine boots, and the command that runs domain 0's Python here."""

    xen: Path
    linux: Path
    domain0: Path
    python: list[str]
    python_home: Path


class NotBuilt(Exception):
    """An image could not be made; one line that says why."""


def images(release: int) -> Images:
    """Fetched and built, or found in the cache.  Raises NotBuilt or `NotAvailable` (tests/support/apt.py)."""
    python = layout.PYTHONS[release]
    names = layout.XEN_PACKAGES.format(debs.xen_version(release), python).split()
    packages = debs.unpacked(*names, release=release)
    kernel_debs = debs.unpacked(_kernel_package(release), release=release)

    def build(place: Path) -> None:
        try:
            _build(packages, kernel_debs, python, place)
        except (layout.Missing, kernel.NotAKernel) as error:
            raise NotBuilt(str(error)) from None

    place = cache.once(f"{_NAME}{_key(packages.name, kernel_debs.name)}", build)
    _forget_old(place)
    command = layout.python_command(packages, python)
    return Images(place / "xen", place / "vmlinux", place / "dom0.cpio", command, packages / "usr")


def overlay(made: Images, command: str, target: Path) -> None:
    """The project as it is now, and what domain 0 shall run: an archive to follow ``dom0.cpio``."""
    stage = target.with_suffix(".tree")
    project = stage / "e2e"
    for name in ("eventbridge", "adapters", "tests/support", str(HERE.relative_to(PROJECT))):
        layout.copy_tree(PROJECT / name, project / name)
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, project / name)
    (stage / "e2e-command").write_text(f"{command}\n")
    byte_compile(made.python, made.python_home, stage, "e2e")
    _archive(stage, target)
    shutil.rmtree(stage)


def _forget_old(place: Path) -> None:
    """Images are large: those of the last few states of their inputs are enough."""
    os.utime(place)
    kept = sorted(cache.directory().glob(f"{_NAME}{'[0-9a-f]' * _KEY}"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _kernel_package(release: int) -> str:
    """That Debian's current kernel: linux-image-amd64 is nothing but a dependency on it."""
    debs.candidates(["linux-image-amd64"], apt := Apt(release))
    said = apt.ask("apt-cache", "depends", "linux-image-amd64")
    found = re.search(r"Depends: (linux-image-\S+)", said)
    if found is None:
        raise NotBuilt("apt offers no linux-image-amd64, domain 0's kernel: run apt-get update (a Debian is needed)")
    return found[1]


def _key(*packages: str) -> str:
    """Of everything that the images are made of."""
    digest = hashlib.sha256("\0".join(packages).encode())
    for name in DISTRIBUTIONS:
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    for source in _sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()[:_KEY]


def _sources() -> Iterator[Path]:
    yield from sorted(HERE.glob("guest/*"))
    yield from (
        HERE / name
        for name in ("images.py", "layout.py", "kernel.py", "zstd.py", "cpio.py", "init.sh", "linux_init.sh")
    )


def _build(packages: Path, kernel_debs: Path, python: str, place: Path) -> None:
    (place / "xen").write_bytes(gzip.decompress(layout.one(packages, "boot/xen-*-amd64.gz").read_bytes()))
    linux = kernel.vmlinux(layout.one(kernel_debs, "boot/vmlinuz-*").read_bytes())
    (place / "vmlinux").write_bytes(linux)
    root = place / "root"
    layout.domain0(packages, kernel_debs, python, root)
    _executable(HERE / "init.sh", root / "init")
    site = SITE.format(python)
    _pytest(root / site)
    for directory in (f"usr/lib/{python}", site):
        byte_compile(layout.python_command(packages, python), packages / "usr", root, directory)
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


def byte_compile(python: list[str], home: Path, root: Path, directory: str) -> None:
    """Ahead, for domain 0's CPU is an emulated one.  ``unchecked-hash``: its files have no times."""
    command = [*python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    environment = {"PYTHONHOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}  # it leaves its own library as it is
    failure = f"domain 0's Python does not compile {directory}"
    _must([*command, "-s", str(root), "-p", "/", str(root / directory)], failure, environment=environment)


def _must(
    command: list[str], failure: str, directory: Path | None = None, environment: dict[str, str] | None = None
) -> None:
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
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
