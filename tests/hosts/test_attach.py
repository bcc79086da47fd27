"""`attach()` inside each loop, as its own library runs it: recognised, served, and the loop none the worse for it."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from eventbridge.core.host_lookup import FOREIGN
from tests.support import wanted
from tests.support.command import environment, run

# Each runs its loop, calls serve(end) inside it, with what ends the loop, and says what it says at last.
LOOPS = {
    "asyncio": """
        import asyncio
        async def main():
            ended = asyncio.Event()
            serve(ended.set)
            await ended.wait()
        asyncio.run(main())
        """,
    "trio": """
        import trio
        async def main():
            ended = trio.Event()
            serve(ended.set)
            await ended.wait()
        trio.run(main)
        """,
    "trio as a guest of asyncio's": """
        import asyncio, trio
        async def guest():
            ended = trio.Event()
            serve(ended.set)
            await ended.wait()
        async def main():
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            trio.lowlevel.start_guest_run(
                guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda _: done.set())
            await done.wait()
        asyncio.run(main())
        """,
    "glib": """
        from gi.repository import GLib
        loop = GLib.MainLoop()
        GLib.idle_add(lambda: serve(loop.quit))
        loop.run()
        """,
    "glib, a context of its own": """
        from gi.repository import GLib
        loop = GLib.MainLoop(context=GLib.MainContext.new())
        idle = GLib.Idle()
        idle.set_callback(lambda *_: serve(loop.quit))
        idle.attach(loop.get_context())
        loop.run()
        """,
    "gevent": """
        import gevent, gevent.event
        ended = gevent.event.Event()
        gevent.spawn(serve, ended.set)
        ended.wait()
        """,
    "gevent, patched": """
        import gevent, gevent.event
        ended = gevent.event.Event()
        gevent.spawn(serve, ended.set)
        ended.wait()
        """,
    "twisted": """
        from twisted.internet import reactor
        reactor.callWhenRunning(serve, reactor.stop)
        reactor.run()
        """,
    "twisted on asyncio": """
        from twisted.internet import asyncioreactor
        asyncioreactor.install()
        from twisted.internet import reactor
        reactor.callWhenRunning(serve, reactor.stop)
        reactor.run()
        """,
    "qt": """
        from PySide6.QtCore import QCoreApplication, QTimer
        app = QCoreApplication([])
        QTimer.singleShot(0, lambda: serve(app.quit))
        app.exec()
        """,
    "qt, PyQt6": """
        from PyQt6.QtCore import QCoreApplication, QTimer
        app = QCoreApplication([])
        QTimer.singleShot(0, lambda: serve(app.quit))
        app.exec()
        """,
    "qt, before exec": """
        from PySide6.QtCore import QCoreApplication
        app = QCoreApplication([])
        serve(app.quit, "qt")
        app.exec()
        """,
    "tornado": """
        from tornado.ioloop import IOLoop
        loop = IOLoop(make_current=False)
        loop.add_callback(serve, loop.stop)
        loop.start()
        loop.close()
        """,
    "uvloop": """
        import uvloop
        loop = uvloop.new_event_loop()
        loop.call_soon(serve, loop.stop)
        loop.run_forever()
        loop.close()
        """,
    "rloop": """
        import rloop
        loop = rloop.new_event_loop()
        loop.call_soon(serve, loop.stop)
        loop.run_forever()
        loop.close()
        """,
    "gbulb": """
        import gbulb
        loop = gbulb.GLibEventLoop()
        loop.call_soon(serve, loop.stop)
        loop.run_forever()
        loop.close()
        """,
    "qasync": """
        from PySide6.QtCore import QCoreApplication
        import qasync
        loop = qasync.QEventLoop(QCoreApplication([]))
        loop.call_soon(serve, loop.stop)
        loop.run_forever()
        loop.close()
        """,
}
HOST = dict.fromkeys(("tornado", "uvloop", "rloop", "gbulb", "qasync"), "asyncio") | {
    "trio as a guest of asyncio's": "trio",
    "twisted on asyncio": "twisted",  # whose asyncio does not run yet in callWhenRunning
}
FIRST = {"gevent, patched": "import gevent.monkey; gevent.monkey.patch_all(thread=False)"}

# Whose thread it is, at once; a byte through a pipe, a timeout, a callback that raises; then the bridge is closed.
PRELUDE = """
import json, os, threading
import eventbridge
said = {"errors": [], "reads": 0, "ticks": 0, "threads": [], "here": [], "elsewhere": []}
def serve(end, host=None):
    bridge = eventbridge.Bridge(host, on_error=lambda error, context: said["errors"].append(str(error)))
    said["here"].append(bridge.is_loop_thread())
    asking = threading.Thread(target=lambda: said["elsewhere"].append(bridge.is_loop_thread()))
    asking.start()
    asking.join()
    reader, writer = os.pipe()
    def readable(id, fd, events, opaque):
        os.read(fd, 1)
        said["reads"] += 1
        said["threads"].append(threading.get_native_id() == os.getpid())
        if said["reads"] == 3:
            raise ValueError("the third")
    def tick(id, opaque):
        said["ticks"] += 1
        os.write(writer, b"x")
        if said["reads"] >= 5:
            said["host"] = bridge.stats().host
            bridge.close()
            end()
    bridge.add_handle(reader, eventbridge.Events.READABLE, readable)
    bridge.add_timeout(1, tick)
"""


NEEDS = {
    "glib": "gi",
    "twisted": "twisted",
    "qt": "PySide6",
    "qt, PyQt6": "PyQt6",
    "qasync": "qasync",
    "gbulb": "gbulb",
}


def said(loop: str) -> dict[str, Any]:
    """What a program says with a line of JSON at its end."""
    program = FIRST.get(loop, "") + PRELUDE + textwrap.dedent(LOOPS[loop]) + "\nprint(json.dumps(said))\n"
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("loop", LOOPS)
def test_the_loop_that_runs_is_recognised_and_served(loop: str) -> None:
    host = loop.partition(",")[0]
    wanted.installed(NEEDS.get(loop, NEEDS.get(host, host.split()[0])))
    answer = said(loop)
    assert answer["host"] == HOST.get(loop, host)
    assert answer["reads"] >= 5 and answer["ticks"] >= answer["reads"]
    assert answer["errors"] == ["the third"]
    assert answer["threads"] == [True] * answer["reads"], "all on the thread that runs the loop"
    assert answer["here"] == [True], "known before the first callback"
    assert answer["elsewhere"] == [False]


@pytest.mark.parametrize(
    "program, found",
    [
        ("from twisted.internet import reactor", "twisted is loaded, but does not run in this thread"),
        ("from gi.repository import GLib", "glib is loaded, but does not run in this thread"),
        ("import trio", "trio is loaded, but does not run in this thread"),
        (
            "import gevent.monkey; gevent.monkey.patch_all(); gevent.get_hub()",
            "gevent: gevent's threads are greenlets here",
        ),
        ("import PySide6.QtCore", "qt is loaded, but does not run in this thread"),
    ],
)
def test_where_none_is_running_what_was_found_is_named(program: str, found: str) -> None:
    wanted.installed(program.split()[1].partition(".")[0])
    done = run(sys.executable, "-c", f"{program}\nimport eventbridge\neventbridge.attach()")
    assert found in done.stderr.splitlines()[-1]
    assert "HostUnavailable" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.parametrize("module", FOREIGN)
def test_a_loop_for_which_there_is_no_host_is_named(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").touch()  # it is known by its name in sys.modules, so an empty one does
    code = f"import {module}, eventbridge\neventbridge.attach()"
    done = run(sys.executable, "-c", code, env=environment(str(tmp_path)))
    assert f"{module} is loaded, for whose loop there is no host" in done.stderr.splitlines()[-1]
    assert done.stdout == ""
