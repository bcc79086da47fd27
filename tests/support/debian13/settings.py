"""What the new system has of this machine's settings: where apt and pip fetch from, and through what."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support import debian

CERTIFICATES = Path("usr/local/share/ca-certificates")
PIP = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
"""Where pip reads its configuration (pip's documentation, "Configuration"); ~ is root's in both systems."""

_PASSED_ON = re.compile(
    r"(https?|ftp|no|all)_proxy|PIP_.*|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|TERM|COLUMNS|NO_COLOR|FORCE_COLOR|CI|HYPOTHESIS_.*|PYTEST_.*|EVENTBRIDGE_(?!CACHE).*",
    re.IGNORECASE,
)
_FIXED = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_ROOT_USER_ACTION": "ignore",
}


def environment() -> dict[str, str]:
    """Return what the tests' processes there have of this process's environment."""
    return {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)} | _FIXED


def proxies() -> dict[str, str]:
    """Return apt's proxies as environment variables, for the programs that debootstrap fetches with."""
    said = re.findall(r'^Acquire::(https?)::[Pp]roxy "([^"]+)";', debian.acquire_configuration(), re.MULTILINE)
    return {f"{scheme}_proxy": value for scheme, value in said if value != "DIRECT"}


def apt(root: Path, sources: Sequence[debian.Source]) -> None:
    """Give it the sources and what apt fetches them with."""
    (root / "etc/apt/sources.list").write_text("".join(f"{source.line()}\n" for source in sources))
    acquire = debian.acquire_configuration()
    (root / "etc/apt/apt.conf.d/90machine").write_text(acquire)
    for path in _paths(re.findall(r'"([^"]*)"', acquire)):  # a certificate, say
        if path.is_file() and not (root / path.relative_to("/")).exists():
            _copy(path, root)
    for name in ("auth.conf", "auth.conf.d"):
        _copy(Path("/etc/apt") / name, root)
    local = Path("/") / CERTIFICATES
    if any(local.rglob("*.crt")):
        shutil.copytree(local, root / CERTIFICATES, dirs_exist_ok=True)
        subprocess.run(["chroot", root, "update-ca-certificates"], capture_output=True, check=True)


def pip(root: Path) -> list[str]:
    """Give it pip's configuration and the files that it names; return the directories that it names, to be mounted."""
    words = [value for name, value in os.environ.items() if name.upper().startswith("PIP_")]
    for name in PIP:
        file = Path(name).expanduser()
        if file.is_file():
            _copy(file, root, root / name.replace("~", "root").lstrip("/"))
            words += _values(file)
    paths = [path for path in _paths(words) if path.exists()]
    for path in paths:
        if path.is_file() and not (root / path.relative_to("/")).exists():
            _copy(path, root)
    # An index's pages, in .../simple, link to files that lie beside it.
    return _outermost(path.parent if path.name == "simple" else path for path in paths if path.is_dir())


def network(root: Path) -> None:
    """Give it this machine's names."""
    for name in ("resolv.conf", "hosts", "hostname"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(Path("/etc") / name, root / "etc" / name)


def _values(file: Path) -> Iterator[str]:
    parser = configparser.RawConfigParser()
    parser.read(file)
    for section in parser.sections():
        yield from (value for _, value in parser.items(section))


def _paths(values: Iterable[str]) -> Iterator[Path]:
    for word in " ".join(values).split():
        path = word.removeprefix("file://")
        if path.startswith("/"):
            yield Path(path)


def _outermost(directories: Iterable[Path]) -> list[str]:
    found: list[Path] = []
    for path in sorted(set(directories)):
        if not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return [str(path) for path in found]


def _copy(source: Path, root: Path, target: Path | None = None) -> None:
    target = target or root / source.relative_to("/")
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
