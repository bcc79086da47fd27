"""Which of Debian's files domain 0 has, and where: the tables, and the copying.

Domain 0 lives in memory, so it gets what its programs need and no more: Xen's daemons and libxl, busybox, and Python
without what no test here imports.  Nothing is installed.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = "x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"

PYTHONS = {12: "python3.11", 13: "python3.13"}
"""Of the releases of Debian that are booted."""

# {0} is Xen's version, {1} Python's program.
XEN_PACKAGES = """\
xen-hypervisor-{0}-amd64 xen-utils-{0} libxenmisc{0} xenstore-utils libxenstore4 libxentoolcore1 libxentoollog1
libxencall1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxendevicemodel1 libxenhypfs1
libyajl2 liblzma5 libuuid1 libzstd1 zlib1g libc6 libgcc-s1 libtinfo6 libffi8 libexpat1 libbz2-1.0 busybox-static
{1}-minimal lib{1}-minimal lib{1}-stdlib"""

DIRECTORIES = """\
proc sys dev tmp root e2e run/xen run/xenstored run/lock bin sbin etc/xen lib/modules usr/bin usr/sbin
var/lib/xen var/lib/xenstored var/log/xen/console"""

# xenconsoled, xenstored and libxl look for their own where Debian's build put it.
XEN_PROGRAMS = "xl xenstored xenconsoled xen-init-dom0 libxl-save-helper".split()
MODULES = "xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc".split()

WITHOUT = """\
test pydoc_data idlelib ensurepip lib2to3 xmlrpc wsgiref curses dbm sqlite3 distutils tkinter venv turtledemo
__pycache__ config-3.*-x86_64-linux-gnu lib-dynload/_codecs_* lib-dynload/_test* lib-dynload/_xxtest*
lib-dynload/_ssl.* lib-dynload/_hashlib.* lib-dynload/_sqlite3.* lib-dynload/_dbm.* lib-dynload/_curses*
lib-dynload/readline.*""".split()

FILES = {
    "etc/xen/xl.conf": 'autoballoon="off"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
LINKS = {
    "lib64": "usr/lib64",
    f"lib/{LIBRARIES}": f"../usr/lib/{LIBRARIES}",
    "var/run": "../run",
    "var/lock": "../run/lock",
}


class Missing(Exception):
    """A package has not what was looked for in it."""


def domain0(debs: Path, kernel_debs: Path, python: str, root: Path) -> None:
    """Fill ``root``, but for the project and its tests."""
    for directory in DIRECTORIES.split():
        (root / directory).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    _copy(debs, "bin/busybox", root / "bin")
    _libraries(debs, root)
    _xen(debs, root)
    _python(debs, python, root)
    for module in MODULES:
        _module(one(kernel_debs, f"lib/modules/*/kernel/**/{module}.ko*"), root / f"lib/modules/{module}.ko")


def python_command(debs: Path, python: str) -> list[str]:
    """Return the command that runs domain 0's Python on this machine, whatever this machine has: with the loader and
    the libraries that it was built with.  PYTHONHOME must be ``debs/usr``.
    """
    libraries = ":".join(str(debs / place / LIBRARIES) for place in ("lib", "usr/lib"))
    return [str(one(debs, f"lib/{LIBRARIES}/{LOADER}")), "--library-path", libraries, str(debs / "usr/bin" / python)]


def one(debs: Path, pattern: str) -> Path:
    """The file that matches, in / or, as merged systems have it, in /usr."""
    found = [path for base in (debs, debs / "usr") for path in sorted(base.glob(pattern))]
    if not found:
        raise Missing(f"no {pattern} in {debs}: these packages are laid out otherwise than Debian 12's and 13's")
    return found[0]


def _libraries(debs: Path, root: Path) -> None:
    """All that these packages have: libgcc_s among them, which libxenstore's threads load by name when they end."""
    place = root / "usr/lib" / LIBRARIES
    place.mkdir(parents=True)
    for base in (debs / "lib" / LIBRARIES, debs / "usr/lib" / LIBRARIES):
        for library in base.glob("*.so*"):
            shutil.copy(library, place, follow_symlinks=False)
    (root / "usr/lib64").mkdir()
    shutil.copy(one(debs, f"lib/{LIBRARIES}/{LOADER}"), root / "usr/lib64")


def _module(source: Path, target: Path) -> None:
    """As busybox's insmod takes it: Debian 13 compresses them."""
    data = source.read_bytes()
    target.write_bytes(lzma.decompress(data) if source.suffix == ".xz" else data)


def _xen(debs: Path, root: Path) -> None:
    own = one(debs, "lib/xen-*/bin").relative_to(debs)
    (root / own).mkdir(parents=True)
    for program in XEN_PROGRAMS:
        _copy(debs, str(own / program), root / own)
        (root / "usr/sbin" / program).symlink_to(f"/{own / program}")
    for client in (debs / "usr/bin").glob("xenstore*"):
        shutil.copy(client, root / "usr/bin", follow_symlinks=False)


def _python(debs: Path, python: str, root: Path) -> None:
    _copy(debs, f"usr/bin/{python}", root / "usr/bin")
    (root / "usr/bin/python3").symlink_to(python)
    library = debs / "usr/lib" / python
    left_out = {path for pattern in WITHOUT for path in library.glob(pattern)}
    copy_tree(library, root / "usr/lib" / python, left_out)


def copy_tree(source: Path, target: Path, left_out: Iterable[Path] = ()) -> None:
    """A directory, without some of what is in it and without byte code."""
    unwanted = {Path(path) for path in left_out}

    def ignore(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(directory, name) in unwanted]

    shutil.copytree(source, target, symlinks=True, ignore=ignore, dirs_exist_ok=True)


def _copy(debs: Path, name: str, directory: Path) -> None:
    shutil.copy(one(debs, name), directory)
