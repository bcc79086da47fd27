"""The command's skeleton: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

import eventbridge
from eventbridge import HostUnavailable, cli
from eventbridge.cli import terminal
from tests.support.command import EVENTBRIDGE, environment, run
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow

OUTPUT: dict[str, Any] = {
    "env": environment(),
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
    "timeout": PATIENCE,
}
HEAVY = ("libvirt", "libvirtmod", "pyuv", "uvloop", "cffi", "matplotlib", "asyncio", "eventbridge.adapters")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """``command(what)`` is the exit code of a command that does ``what()``."""

    def command(what: Callable[[], object]) -> int:
        def register(subparsers: Any) -> None:
            subparsers.add_parser("fake").set_defaults(run=lambda args: what() or 0)

        monkeypatch.setattr(cli, "COMMANDS", {"fake": "does it"})
        monkeypatch.setitem(sys.modules, "eventbridge.cli.fake", SimpleNamespace(register=register))
        return cli.main(["fake"])

    return command


def fails_with(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    "error, line",
    [
        (HostUnavailable("no such loop;\n  install it"), "eventbridge: no such loop; install it\n"),
        (FileNotFoundError(2, "No such file", "here"), "eventbridge: here: No such file\n"),
        (TimeoutError(), "eventbridge: TimeoutError\n"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    error: Exception, line: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(fails_with(error)) == 1
    assert capsys.readouterr() == ("", line)


def test_a_mistake_of_the_commands_own_is_one_line_too_and_says_how_to_see_where(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(fails_with(ZeroDivisionError("oh"))) == 1
    assert capsys.readouterr().err == "eventbridge: a mistake of its own: oh (EVENTBRIDGE_DEBUG=1 shows where)\n"


def test_debug_mode_shows_the_traceback_after_the_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "DEBUG", True)
    assert command(fails_with(HostUnavailable("no"))) == 1
    assert re.match(r"eventbridge: no\nTraceback .*HostUnavailable: no\n$", capsys.readouterr().err, re.DOTALL)


def test_an_interrupt_is_130_and_says_nothing(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(fails_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


def test_what_a_command_returns_is_the_exit_code(command: Callable[..., int]) -> None:
    assert command(lambda: 0) == 0
    assert command(lambda: 7) == 7


def test_every_command_is_listed_and_documented_with_examples() -> None:
    shown = run(*EVENTBRIDGE, "--help").stdout
    for name, summary in cli.COMMANDS.items():
        assert f"{name} {summary}" in " ".join(shown.split())
        assert f"eventbridge {name}" in run(*EVENTBRIDGE, name, "--help").stdout.partition("examples:")[2]


def test_help_imports_no_library_but_the_standard_one_and_no_adapter() -> None:
    code = (
        "import sys, contextlib, eventbridge.cli\n"
        "with contextlib.suppress(SystemExit): eventbridge.cli.main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    assert run(sys.executable, "-c", code).stderr == "[]\n"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_says_of_itself_what_the_list_says_of_it(name: str) -> None:
    subparsers = MagicMock()
    importlib.import_module(f"eventbridge.cli.{name}").register(subparsers)
    args, options = subparsers.add_parser.call_args
    assert (args, options["help"]) == ((name,), cli.COMMANDS[name])


def test_the_program_and_the_module_are_the_same_and_know_their_version() -> None:
    script = "import sys; from eventbridge.cli import main; sys.exit(main(['--version']))"
    for command in ([*EVENTBRIDGE, "--version"], [sys.executable, "-c", script]):
        assert run(*command).stdout == f"eventbridge {eventbridge.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"], ["watch"]])
def test_a_wrong_call_is_exit_code_2_and_says_what_there_is(arguments: list[str]) -> None:
    done = run(*EVENTBRIDGE, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: eventbridge" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["watch", "--help"]])
def test_output_into_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        done = subprocess.run([*EVENTBRIDGE, *arguments], **(OUTPUT | {"stdout": pipe}))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["watch", "--help"]])
def test_output_onto_a_full_disk_is_one_line_and_exit_code_1(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*EVENTBRIDGE, *arguments], **(OUTPUT | {"stdout": full}))
    assert (done.returncode, done.stderr) == (1, "eventbridge: standard output: No space left on device\n")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["watch", "--nonsense"]])
def test_errors_that_cannot_be_written_leave_the_exit_code_as_it_is(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*EVENTBRIDGE, *arguments], **(OUTPUT | {"stderr": full}))
    assert (done.returncode, done.stdout) == (2, "")
