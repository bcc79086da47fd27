"""The pytest plugin that ends a test which outlives its limit, whatever it hangs in.

pytest-timeout enforces a test's limit, from inside: its signal handler runs when the interpreter runs again.  What
that cannot end, a watchdog process does, some seconds after: see `watchdog`.  Each phase of a run has a limit:

    collection                       5 times the ``timeout`` of pytest's configuration
    a test's setup and body          what pytest-timeout gives it
    a test's teardown                the same once more
    the session's finish, the exit   ``timeout``
    xdist's controller               15 times ``timeout`` without news from a worker

and each has the grace besides, ``limits_grace`` in pytest's configuration.  All of them are multiplied by
EVENTBRIDGE_TEST_PATIENCE.  Without a ``timeout`` nothing is watched; under a debugger, give ``--timeout 0``.

A worker of xdist that is killed is replaced, and xdist names the test.  A worker that is killed after its last test
makes the run fail too.  The main process forks when the run begins: the child goes on as pytest, and the parent becomes
the watchdog, so that it can exit with 1 though a killed process cannot.  A process that has several threads by then
(pytest-randomly imports numpy, where that is installed) does not fork: it is watched from beside, and where it is
killed its exit status says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support import patience
from tests.support.limits import watchdog

SCRIPT = watchdog.__file__
REPORT = 30 * patience.FACTOR
"""Seconds within which the stacks are written, or left out."""
COLLECTION = 5
"""Limits that the collection of all tests has."""
SILENCE = 15
"""Limits within which xdist's controller hears from a worker: more than the longest test has.  The last resort, for a
worker that hangs while it waits for its next test, or while it imports what it needs to be watched."""
PR_SET_PDEATHSIG = 1
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1  # <linux/prctl.h>

_stderr = -1  # the real one, for the stacks: kept until the process has ended


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("limits_grace", "seconds after its limit at which a watchdog kills a test", default="10")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Scale the limit before pytest-timeout reads it, and start to watch."""
    limit = _scaled_default(config)
    workerinput = getattr(config, "workerinput", {})
    known = not workerinput or "limits_directory" in workerinput  # to the controller, which has this plugin too
    if not limit or not known or not sys.executable or not hasattr(os, "pidfd_open"):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        watch = Watch(workerinput)
    grace = float(config.getini("limits_grace")) * patience.FACTOR
    config.pluginmanager.register(Limits(config, watch, limit, grace), "limits")


def _scaled_default(config: pytest.Config) -> float:
    """A limit that the command line or the environment gives is taken as it is."""
    given = config.getoption("timeout", None)
    given = os.environ.get("PYTEST_TIMEOUT") if given is None else given
    if given is not None:
        return float(given)
    if not config.pluginmanager.hasplugin("timeout"):
        return 0.0
    config.option.timeout = float(config.getini("timeout") or 0) * patience.FACTOR or None
    return config.option.timeout or 0.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scale the limits that marks give."""
    for item in items if patience.FACTOR != 1 else ():
        mark = item.get_closest_marker("timeout")
        if mark is not None:
            limits = dict(zip(("timeout", "method", "func_only"), mark.args, strict=False), **mark.kwargs)
            limits["timeout"] = limits["timeout"] and limits["timeout"] * patience.FACTOR
            item.add_marker(pytest.mark.timeout(**limits), append=False)


class Watch:
    """This process's watchdog, and the page of memory that tells it what runs."""

    def __init__(self, workerinput: dict[str, Any]) -> None:
        global _stderr
        _stderr = os.dup(2)
        faulthandler.register(watchdog.STACKS, file=_stderr, all_threads=True)
        self._number = 0
        self._told: watchdog.Record = (0.0, 0.0, "", "")
        fd = os.memfd_create("limits")
        os.ftruncate(fd, watchdog.SIZE)
        self._memory = mmap.mmap(fd, watchdog.SIZE)
        token = f"EVENTBRIDGE_TEST_PROCESS={os.getpid()}-{time.monotonic_ns()}"
        options = {"memory": fd, "token": token, "report": REPORT}
        if workerinput:
            self.directory = workerinput["limits_directory"]
            options |= {"worker": workerinput["workerid"], "controller": workerinput["limits_controller"]}
        else:
            self.directory = tempfile.mkdtemp(prefix="eventbridge-limits-")
            Path(self.directory, "running").touch()
        options["directory"] = self.directory
        if workerinput or len(os.listdir("/proc/self/task")) > 1:  # of which a fork has but one
            self._start(fd, options)
        else:
            self._start_over(fd, options)
        os.close(fd)
        os.environ.__setitem__(*token.split("=", 1))
        _prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)  # where only an ancestor may look into a process

    def _start(self, fd: int, options: dict[str, Any]) -> None:
        """As nobody's child: some libraries wait for any child of the process.  So a shell starts it, and ends."""
        command = ["/bin/sh", "-c", '"$@" &', "sh", *_command({"pid": os.getpid(), **options})]
        subprocess.run(command, check=True, pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _start_over(self, fd: int, options: dict[str, Any]) -> None:
        """Go on in a child.  It dies with its parent, which is the process that others know."""
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watchdog.FORWARDED)
        child = os.fork()
        if child:
            os.set_inheritable(fd, True)
            try:
                os.execv(sys.executable, _command({"pid": child, "supervise": "yes", **options}))
            finally:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def tell(self, phase: str, name: str = "", limit: float = 0.0, grace: float = 0.0) -> None:
        """From now on this runs, and has so many seconds; 0: as long as it takes."""
        self._write(time.monotonic() + limit + grace if limit else 0.0, limit, phase, name)

    def tell_phase(self, phase: str) -> None:
        """The next part of what runs, within the same limit."""
        ends, limit, _, name = self._told
        self._write(ends, limit, phase, name)

    def tell_exit_of_worker(self, limit: float) -> None:
        """From now on xdist's worker is to end.  It has so many seconds from when its controller tells it to."""
        self._write(0.0, limit, watchdog.EXIT, "")

    def _write(self, ends: float, limit: float, phase: str, name: str) -> None:
        self._told = ends, limit, phase, name
        self._number += 2
        watchdog.NUMBER.pack_into(self._memory, 0, self._number - 1)
        watchdog.RECORD.pack_into(
            self._memory, watchdog.AT, ends, limit, phase.encode(), name.encode(errors="replace")[:3000]
        )
        watchdog.NUMBER.pack_into(self._memory, 0, self._number)


def _prctl(option: int, argument: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(argument), 0, 0, 0)


def _command(options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-I", "-S", SCRIPT, *(f"{name}={value}" for name, value in options.items())]


class Limits:
    """Tells the watchdog what begins.  In the controller of xdist it gathers what the workers' watchdogs ended."""

    def __init__(self, config: pytest.Config, watch: Watch, limit: float, grace: float) -> None:
        self._config = config
        self._watch = watch
        self._limit = limit
        self._grace = grace
        self._item_limit = 0.0
        self._name = ""
        self._is_worker = hasattr(config, "workerinput")
        self._controls = False
        self._debugging = False
        watch.tell("collection", "", COLLECTION * limit, grace)

    # -- what begins

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        self._controls = self._config.pluginmanager.hasplugin("dsession")
        self._heard()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._between()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._name, self._item_limit = item.nodeid, 0.0
        result = yield
        self._between()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, settings: Any) -> Generator[None, object, object]:
        """What pytest-timeout has made of the configuration, the options and the marks."""
        self._item_limit = settings.timeout
        self._phase("its setup")
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        self._watch.tell_phase("its body")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        self._phase("its teardown")

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        self._debugging = True
        self._watch.tell("a debugger")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        limit = self._limit
        if self._controls:
            Path(self._watch.directory, "running").unlink(missing_ok=True)  # the workers are about to be told to end
            limit += self._exit_timeout()
        self._watch.tell("the session's finish", "", limit, self._grace)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._is_worker:
            self._watch.tell_exit_of_worker(self._limit + self._grace)
        else:
            self._watch.tell(watchdog.EXIT, "", self._limit, self._grace)

    def _phase(self, phase: str) -> None:
        self._watch.tell(phase, self._name, 0.0 if self._debugging else self._item_limit, self._grace)

    def _between(self) -> None:
        """A worker waits for its next test, a debugger's user thinks."""
        waits = self._is_worker or self._debugging
        self._watch.tell("what comes between tests", self._name, 0.0 if waits else self._limit, self._grace)

    # -- xdist's controller

    def _heard(self) -> None:
        if self._controls:
            self._watch.tell("waiting for news from its workers", "", SILENCE * self._limit, self._grace)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        self._heard()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        self._heard()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        self._heard()

    def _exit_timeout(self) -> float:
        """A worker's watchdog is to be faster than xdist, which kills without a word."""
        return self._limit + self._grace + REPORT + self._grace

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["limits_directory"] = self._watch.directory
        node.workerinput["limits_controller"] = os.getpid()
        node.nodemanager.EXIT_TIMEOUT = self._exit_timeout()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """xdist replaces a worker whatever it died of.  The next one would hang in collecting too, and the next; so
        would one that has no test left to run at its end.
        """
        verdict = self._verdicts().get(node.gateway.id, "")
        scheduler = self._config.pluginmanager.getplugin("dsession").sched
        at_the_end = " in the session's finish (" in verdict and not scheduler.has_pending
        if at_the_end or " in collection (" in verdict:
            pytest.exit(verdict, returncode=1)

    def _verdicts(self) -> dict[str, str]:
        if not self._controls:
            return {}
        found = {file.name: file.read_text().strip() for file in sorted(Path(self._watch.directory).iterdir())}
        found.pop("running", None)
        return found

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Called at the very end of the session's finish: the workers have ended."""
        verdicts = self._verdicts()
        if verdicts:
            terminalreporter.section("ended by a watchdog")
            for verdict in verdicts.values():
                terminalreporter.write_line(verdict, red=True)
            if terminalreporter._session.exitstatus == 0:  # a test's report may have come before its worker hung
                terminalreporter._session.exitstatus = 1
