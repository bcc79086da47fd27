"""What a command says is read once, by one reader, in whichever pieces it comes."""

from __future__ import annotations

import subprocess
import sys

from tests.support.command import Running

SAYS_ALL_AT_ONCE = "import os; os.write(1, b'one\\ntwo\\nthree\\n'); os.write(2, b'un\\ndeux\\n')"
SAYS_MUCH = "import sys; print('first', flush=True); sys.stderr.write('e' * 300_000); print('o' * 300_000)"


def started(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_came_with_a_line_that_was_read_is_part_of_the_rest() -> None:
    with started(SAYS_ALL_AT_ONCE) as process:
        command = Running(process)
        process.wait()
        assert command.shows(1) == ["one\n"] and command.until("un") == ["un\n"]
        assert command.ends() == (0, "two\nthree\n", "deux\n")


def test_a_command_that_says_more_than_a_pipe_holds_ends() -> None:
    with started(SAYS_MUCH) as process:
        command = Running(process)
        assert command.shows(1) == ["first\n"]
        code, out, err = command.ends()
    assert (code, len(out), len(err)) == (0, 300_001, 300_000)
