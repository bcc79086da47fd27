"""The process that ends a test process which has outlived a limit.  A script, run with ``python -I -S``.

It shares a page of memory with the process that it watches, and never waits for it, so nothing that process does can
hold it up: C code that keeps the interpreter's lock, signals that are blocked, a process that is stopped.  At a limit
it writes to standard error what ran, in which phase, and the stacks of all threads.  Then it kills the process and
every process that was started from it.

The main process of a run is this script's child: the script exits as the child does, or with 1 if it had to kill it.
One of xdist's workers is not; there the script is nobody's child, so that it is in no one's way.  It imports little,
for it is started once a process and must work where half of the standard library is missing.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable, Iterator

Record = tuple[float, float, str, str]
"""When the limit ends (`time.monotonic`; 0 for never), the limit in seconds, the phase, and the test's name."""

NUMBER = struct.Struct("=I")
"""Comes first.  Odd while the rest is being written, and another one after each change."""
RECORD = struct.Struct("=dd40s3000s")
AT = 8
SIZE = 4096

EXIT = "exit"
STACKS = signal.SIGRTMAX - 5
"""At this signal the watched process writes the stacks of its Python threads."""

TICK = 0.25
"""Seconds between two looks at the memory."""
LATE = 1.0
"""Seconds by which a look may be late.  One that is later tells that this process, and so surely the other one, did
not run meanwhile: ctrl-Z, a machine that stood still.  The test gets that time again."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def read(memory: mmap.mmap) -> tuple[int, Record]:
    """Return the number and a record that was not being changed."""
    while True:
        (before,) = NUMBER.unpack_from(memory, 0)
        ends, limit, phase, name = RECORD.unpack_from(memory, AT)
        (after,) = NUMBER.unpack_from(memory, 0)
        if before == after and not before % 2:
            return before, (ends, limit, _text(phase), _text(name))
        time.sleep(0.001)


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")


class Watchdog:
    """Watches one process.  ``directory`` is the run's: the file ``running`` is in it until the run ends."""

    def __init__(self, options: dict[str, str]) -> None:
        self.pid = int(options["pid"])
        self.token = options["token"]
        self.worker = options.get("worker", "")
        self.directory = options["directory"]
        self.report_seconds = float(options["report"])
        fd = int(options["memory"])
        self.memory = mmap.mmap(fd, SIZE)
        os.close(fd)
        self.alive = os.pidfd_open(self.pid)
        self.controller = os.getppid() if not self.worker else int(options["controller"])

    def watch(self) -> str:
        """Return when the process has ended, and what has outlived its limit before, if anything has."""
        ended = select.poll()
        ended.register(self.alive, select.POLLIN)
        seen, late, exit_began, outlived = -1, 0.0, 0.0, ""
        while True:
            number, (ends, limit, phase, name) = read(self.memory)
            if number != seen:
                seen, late = number, 0.0
            if self.worker and phase == EXIT and not exit_began and self._run_has_ended():
                exit_began = time.monotonic()
            if exit_began:
                ends = exit_began + limit
            left = ends + late - time.monotonic() if ends else TICK
            if left <= 0 and not ended.poll(0):
                outlived = f"{name or 'pytest'} outlived its limit of {limit:g} s in {phase}"
                if self.end(outlived, number):
                    return outlived
                continue
            before = time.monotonic()
            if ended.poll(max(0, min(left, TICK)) * 1000 + 1):
                return outlived
            slept = time.monotonic() - before
            late += slept if slept > TICK + LATE else 0.0

    def _run_has_ended(self) -> bool:
        """A worker lives until the run has ended: then its controller removes the file, or has died."""
        return not os.path.exists(f"{self.directory}/running") or not os.path.exists(f"/proc/{self.controller}")

    def end(self, what: str, number: int) -> bool:
        """Report; then kill the process, with all that was started from it, and return True.

        A signal or a debugger may have interrupted what hung.  What runs by now is not to be blamed for it, so the
        process goes on then, and this returns False.
        """
        what += f" (process {self.pid}" + (f", worker {self.worker})" if self.worker else ")")
        report = os.fork()
        if report == 0:
            _report(self.pid, what, self.directory, self.report_seconds / 4)
        _wait(report, self.report_seconds)
        if self.worker:
            with open(f"{self.directory}/{self.worker}", "a") as verdict:
                verdict.write(f"{what}\n")
        _kill(self.pid, signal.SIGSTOP)  # takes effect when it next would run, and is not needed while it does not
        time.sleep(0.05)
        if read(self.memory)[0] != number:
            _kill(self.pid, signal.SIGCONT)
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """By id, and again until there are none: one that is being killed can have started another meanwhile."""
        for _ in range(10):
            found = [pid for pid in self._started() if pid not in (os.getpid(), os.getppid(), self.controller)]
            for pid in found:
                _kill(pid, signal.SIGKILL)  # ends one that is stopped too
            if not found:
                return
            time.sleep(0.02)

    def _started(self) -> Iterator[int]:
        """Of what lives: the process, its descendants, and the processes that have its token in their environment."""
        processes = {pid: fields for pid in _numbers("/proc") if (fields := _stat(pid)) and fields[0] not in "ZX"}
        family = {self.pid}
        while more := {pid for pid, (_, parent) in processes.items() if parent in family} - family:
            family |= more
        for pid in processes:
            if pid in family or self.token.encode() in _content(f"/proc/{pid}/environ").split(b"\0"):
                yield pid


def _numbers(directory: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    except OSError:
        return []


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:  # it has ended, or is another user's
        return b""


def _stat(pid: int) -> tuple[str, int] | None:
    """A process's state and its parent."""
    fields = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (fields[0].decode(), int(fields[1])) if fields else None


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        os.kill(pid, number)


def _wait(child: int, seconds: float) -> None:
    """For a child that leads a process group, which is killed after so many seconds."""
    fd = os.pidfd_open(child)
    if not select.select([fd], [], [], seconds)[0]:
        try:
            os.killpg(child, signal.SIGKILL)
        except OSError:
            _kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(fd)


# -- what is reported: in a process of its own, which may hang as well


def _report(pid: int, what: str, directory: str, seconds: float) -> None:
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # another group than the terminal's may be writing here
        _take_turns(directory, seconds)
        _say(f"\n++++ {what} ++++\n")
        _native_stacks(pid, seconds)
        _python_stacks(pid, seconds)
        _say("++++ end of the report ++++\n")
    finally:
        os._exit(0)


def _take_turns(directory: str, seconds: float) -> None:
    """With the watchdogs of other workers, which write to the same terminal."""
    fd = os.open(directory, os.O_RDONLY)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            time.sleep(0.02)


def _say(text: str) -> None:
    os.write(2, text.encode())


def _native_stacks(pid: int, seconds: float) -> None:
    """By what there is.  The signal comes later, for it may interrupt the call that hangs."""
    py_spy = ("py-spy", "dump", "--native", "--pid", str(pid))
    if _is_stopped(pid):  # by a signal: py-spy would wait for another stop
        py_spy = ("py-spy", "dump", "--nonblocking", "--pid", str(pid))
    gdb = ("gdb", "-nx", "-batch", "-p", str(pid), "-ex", "thread apply all backtrace")
    path = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"
    for name, *arguments in (py_spy, gdb):
        program = next((p for d in path.split(":") if os.access(p := f"{d}/{name}", os.X_OK)), None)
        if program and _run((program, *arguments), path, seconds):
            return


def _is_stopped(pid: int) -> bool:
    state = _stat(pid)
    return state is None or state[0] == "T"


def _run(command: Iterable[str], path: str, seconds: float) -> bool:
    """Run a program that writes to standard error, and return whether it succeeded."""
    program, *arguments = command
    _say(f"-- {program} {' '.join(arguments)}\n")
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(2, 1)
            if program.endswith("gdb"):
                os.dup2(null, 2)  # a warning for each library without symbols
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execve(program, [program, *arguments], {**os.environ, "PATH": path, "DEBUGINFOD_URLS": ""})
        finally:
            os._exit(127)
    fd = os.pidfd_open(child)
    if not select.select([fd], [], [], seconds)[0]:
        _say(f"-- it took longer than {seconds:g} s\n")
        _kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _python_stacks(pid: int, seconds: float) -> None:
    """By the process itself, in a signal handler that needs no lock, where it can still receive the signal."""
    bit = 1 << STACKS - 1
    threads = [_masks(f"/proc/{pid}/task/{thread}/status") for thread in _numbers(f"/proc/{pid}/task")]
    if not any(masks.get("SigCgt", 0) & bit and not masks.get("SigBlk", bit) & bit for masks in threads):
        _say("-- it blocks the signal at which it would write the stacks of its Python threads\n")
        return
    if _is_stopped(pid):
        _say("-- it is stopped, and cannot write the stacks of its Python threads\n")
        return
    _say("-- the stacks of its Python threads\n")
    _kill(pid, STACKS)
    until = time.monotonic() + seconds
    while _masks(f"/proc/{pid}/status").get("ShdPnd", 0) & bit and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(min(0.5, seconds))  # which it takes to write


def _masks(path: str) -> dict[str, int]:
    lines = (line.partition(":") for line in _content(path).decode(errors="replace").splitlines())
    return {name: int(value, 16) for name, _, value in lines if name in ("SigCgt", "SigBlk", "ShdPnd")}


# -- the two ways to be started


def supervise(watchdog: Watchdog) -> None:
    """Of a child: exit as it does, or with 1 if it was killed here."""
    _thread.start_new_thread(_forward, (watchdog.pid,))
    outlived = watchdog.watch()
    _, status = os.waitpid(watchdog.pid, 0)
    _remove(watchdog.directory)
    if outlived:
        os._exit(1)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _forward(pid: int) -> None:
    """Signals that someone sends to this process are meant for pytest; what a terminal sends, it has received too."""
    while True:
        received = signal.sigwaitinfo(FORWARDED)
        if received.si_code <= 0:  # SI_USER and its like
            _kill(pid, received.si_signo)


def _remove(directory: str) -> None:
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        pass


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    try:
        watchdog = Watchdog(options)
    except ProcessLookupError:  # it has ended already
        return
    if options.get("supervise"):
        supervise(watchdog)
        return
    watchdog.watch()
    if not watchdog.worker:
        _remove(watchdog.directory)


if __name__ == "__main__":
    main()
