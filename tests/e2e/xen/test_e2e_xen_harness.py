"""The harness around the real Xen, as far as it goes without booting one."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.xen import __main__ as program
from tests.e2e.xen import cpio, images, kernel, layout, machine
from tests.e2e.xen.console import Console, Stage
from tests.support.command import ROOT, environment
from tests.support.patience import PATIENCE
from tests.support.wanted import program as program_path

ELF = b"\x7fELF" + bytes(100)


# -- archives


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """What a newc archive holds, read as the kernel reads it: mode and data by name."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701", "each header is where the padding says"
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, owner, size, name_size = numbers[1], numbers[2:4], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0") and owner == [0, 0]
        data_at = at + (110 + name_size + 3) // 4 * 4
        found[name[:-1].decode()] = (mode, archive[data_at : data_at + size])
        at = data_at + (size + 3) // 4 * 4
    return found


def archived(tree: Path) -> bytes:
    stream = io.BytesIO()
    archive = cpio.Archive(stream)
    archive.tree(tree)
    archive.close()
    return stream.getvalue()


def test_an_archive_holds_files_directories_and_links_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    (tmp_path / "bin/tool").write_bytes(b"five!")
    (tmp_path / "bin/tool").chmod(0o751)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "up").symlink_to("bin")
    assert entries(archived(tmp_path)) == {
        "bin": (0o40755, b""),
        "bin/tool": (0o100751, b"five!"),
        "dangling": (0o120777, b"nowhere"),
        "up": (0o120777, b"bin"),
        "TRAILER!!!": (0, b""),
    }


def test_the_same_tree_is_the_same_archive_whenever_it_was_made(tmp_path: Path) -> None:
    for name, content in (("one", "abc"), ("two", "abc")):
        (tmp_path / name).mkdir()
        for file in ("x", "y") if name == "one" else ("y", "x"):
            (tmp_path / name / file).write_text(content)
    assert archived(tmp_path / "one") == archived(tmp_path / "two")


def test_archives_follow_one_another_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    assert entries(archived(tmp_path) * 2)["file"][1] == b"a"


def test_what_is_neither_file_nor_directory_nor_link_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        archived(tmp_path)


# -- kernels


def bzimage(payload: bytes, version: int = 0x20F, sectors: int = 2) -> bytes:
    header = bytearray((sectors + 1) * 512)
    header[0x1F1] = sectors
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + bytes(16) + payload + b"what follows"


def zstd_of_a_pipe(data: bytes) -> bytes:
    """A frame that does not say how much is in it: magic, a window of 1 KiB, one raw block (RFC 8878, 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\x00\x00" + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress, zstd_of_a_pipe])
def test_the_elf_file_comes_out_of_a_bzimage(compress: object) -> None:
    payload = compress(ELF)  # type: ignore[operator]
    assert kernel.vmlinux(bzimage(payload + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize(
    "image, said",
    [
        (b"", "bzImage"),
        (ELF * 10, "HdrS"),
        (bzimage(b"")[:0x240], "576"),
        (bzimage(lzma.compress(ELF))[:-60], "payload"),
        (bzimage(lzma.compress(ELF), version=0x207), "2.07"),
        (bzimage(b"\x28\xb5\x2f\xfd...."), "zstd"),
        (bzimage(b"\x02\x21\x4c\x18...."), "lz4"),
        (bzimage(b"nonsense"), "nonsen"),
        (bzimage(lzma.compress(ELF)[:20] + bytes(60)), "xz"),
        (bzimage(gzip.compress(b"no elf")), "ELF"),
    ],
)
def test_what_is_no_kernel_of_use_is_refused_with_what_it_is(image: bytes, said: str) -> None:
    with pytest.raises(kernel.NotAKernel, match=said):
        kernel.vmlinux(image)


# -- the console


def fed(*lines: str) -> tuple[Console, list[str]]:
    console = Console()
    shown = [console.line(f"{line}\r\n".encode()) for line in lines]
    return console, [text for text in shown if text is not None]


def test_only_what_the_command_says_is_shown() -> None:
    console, shown = fed(
        "(XEN) Xen version 4.17",
        "[    1.0] Linux",
        "e2e-xen: ready",
        "collected 5",
        "(XEN) d1 gone",
        "e2e-xen: result 0",
    )
    console.end()
    assert shown == ["collected 5"]
    assert (console.stage, console.result, console.trouble) == (Stage.ENDED, 0, None)


def test_a_line_of_ours_is_found_behind_somebody_elses_unfinished_one() -> None:
    assert fed("e2e-xen: ready", "(XEN) half a lie2e-xen: result 3")[0].result == 3


@pytest.mark.parametrize(
    "lines, trouble",
    [
        ([], "domain 0"),
        (["e2e-xen: ready"], "command"),
        (["e2e-xen: failed xenstored"], "xenstored"),
        (["(XEN) Panic on CPU 0:", "e2e-xen: failed later"], "(XEN) Panic on CPU 0:"),
        (["[ 1.2] Kernel panic - not syncing: no init"], "[ 1.2] Kernel panic - not syncing: no init"),
    ],
)
def test_a_machine_that_fails_has_no_result_and_says_why(lines: list[str], trouble: str) -> None:
    console, _ = fed(*lines)
    console.end()
    assert (console.stage, console.result) == (Stage.BROKEN, None)
    assert console.trouble is not None and trouble in console.trouble


def test_what_a_test_prints_is_not_taken_for_a_result() -> None:
    console, shown = fed("e2e-xen: ready", "e2e-xen: result of nothing", "e2e-xen: results 0")
    assert (console.result, len(shown)) == (None, 2)


# -- the machine


def playing(monkeypatch: pytest.MonkeyPatch, script: str) -> images.Images:
    """A shell script plays the machine.  Returns images that it does not look at."""
    monkeypatch.setattr(machine, "command", lambda images, disk: ["sh", "-c", script])
    return images.Images(Path(), Path(), Path(), [], Path())


def test_a_machine_that_falls_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unused = playing(monkeypatch, "echo up; exec sleep 1000")
    with (
        pytest.raises(machine.WentSilent, match="printed nothing"),
        machine.running(unused, tmp_path, tmp_path / "log", silence=0.2) as lines,
    ):
        assert list(lines) == [b"never"]
    assert (tmp_path / "log").read_text() == "up\n"


def test_a_machine_that_goes_on_printing_may_take_longer_than_the_limit_on_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait is of its own: the limit is no budget that the lines use up together."""
    waits: list[float] = []

    class Lines:
        def get(self, timeout: float) -> bytes | None:
            waits.append(timeout)
            return b"line" if len(waits) < 100 else None

    assert list(machine._until_silent(2.0, Lines())) == [b"line"] * 99  # type: ignore[arg-type]
    assert set(waits) == {2.0}


def test_every_file_that_an_image_is_made_of_is_in_its_key() -> None:
    """Or an old image would be booted after a change."""
    made_of = {path.name for path in images._sources()}
    assert made_of >= {"guest.c", "start.S", "xen.h", "guest.lds", "init.sh", "linux_init.sh", "layout.py"}
    assert made_of >= {"kernel.py", "zstd.py", "cpio.py"}


def test_the_guest_compiles_to_what_xens_domain_builder_looks_for(tmp_path: Path) -> None:
    """xen/include/public/elfnote.h: notes of the owner "Xen", in a segment that may be loaded and run."""
    program_path("gcc", "gcc")
    images.compile_guest(tmp_path / "guest")
    elf = (tmp_path / "guest").read_bytes()
    entry = struct.unpack_from("<Q", elf, 24)[0]
    note = struct.pack("<III", 4, 8, 1) + b"Xen\0" + struct.pack("<Q", entry)
    assert (elf[:4], elf.count(note)) == (b"\x7fELF", 1), "the note ENTRY says where it begins"
    assert struct.pack("<III", 4, 8, 5) + b"Xen\0xen-3.0\0" in elf
    assert len(elf) < 16384


def test_a_guest_that_does_not_compile_is_told_with_the_compilers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    program_path("gcc", "gcc")
    monkeypatch.setattr(images, "GUEST_SOURCES", ("no-such-file.c",))
    with pytest.raises(images.NotBuilt, match="no-such-file"):
        images.compile_guest(Path("/nonexistent"))


def test_what_does_not_compile_in_the_project_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "e2e").mkdir()
    (tmp_path / "e2e/broken.py").write_text("def\n")
    with pytest.raises(images.NotBuilt, match=r"broken\.py.*SyntaxError") as caught:
        images.byte_compile([sys.executable], Path(sys.base_prefix), tmp_path, "e2e")
    assert "\n" not in str(caught.value)


# -- what is lacking


def test_it_names_every_program_that_is_lacking_and_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = program.lacking()
    assert said is not None
    assert {*program.NEEDED, *program.NEEDED.values()} <= set(said.replace(",", "").split())


def test_without_a_program_it_says_so_in_a_line_and_does_nothing(tmp_path: Path) -> None:
    env = environment(PATH=str(tmp_path), EVENTBRIDGE_CACHE=str(tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.xen"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "apt-get install" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_package_of_another_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(layout.Missing, match="bin/busybox"):
        layout.one(tmp_path, "bin/busybox")


def test_the_tests_of_domain_0_are_there_and_are_not_collected_here() -> None:
    names = [path.name for path in (ROOT / program.TESTS).parent.glob(Path(program.TESTS).name)]
    assert names
    assert not [name for name in names if name.startswith("test_") or name.endswith("_test.py")]
