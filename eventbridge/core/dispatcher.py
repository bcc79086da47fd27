"""One pass: what happens when the host says that the bridge's fd is readable.  Rules D1-D5; all of it is loop side.

Theory of operation.  Work is taken in *rounds*: a round is what was due and what was ready at one moment, the
timeouts first (D3).  A *pass* is one call from the host and ends with its budget (D2); a round that is longer goes on
in the next pass, before anything new is looked for, so nobody starves however many are ready.  A round of one event, as
most are where little happens, is over with its call, and is made with as little as that takes; any other is two plain
iterators; taking from them is what "delivered once" means (D5): when a callback runs the host loop again, the nested
pass goes on with the very same iterators, and the outer one finds them further along.

Between the moment of the poll and the moment of a callback the world changes.  What was removed, turned off or
re-armed is asked of the registry at each call (H5); a number that was removed or added since is in
``FdTable.touched``, and what the round holds on it is dropped: level-triggered polling reports again whatever is
still true.

While a callback runs a nested loop, its own handle is not called again: its fd is muted until the outer call has
returned.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, monotonic_ns

from .affinity import loop_side
from .handles import Handle, SharedFd
from .masks import TO_KERNEL, TOLD
from .observer import Observer
from .origin import NOBODYS, one_of, origin
from .registry import Registry
from .timers import Timer

BUDGET_CALLBACKS = 256
BUDGET_SECONDS = 0.002
FEW = 40  # events that are asked for at first: room for more than 512 bytes of them costs Python a malloc(3), 0.06 us
AUDIT_EVERY = 64  # passes; see _prepare
QUICK = 0.0002  # seconds; what takes longer is worth timing by itself
CAREFUL_PASSES = 100
TOGETHER = 4  # quick callbacks are timed so many together


class Dispatcher:
    """The passes over one registry.

    With slots, those of `ObservedDispatcher` included: an object whose class is exchanged, there and back, would
    otherwise keep its attributes in a dict of its own from then on (CPython 3.11), and be slower for good.
    """

    __slots__ = (
        "_ask_for _audit_at _careful _chores _current _depth _events _freeing _late _left _muted _outer _poll "
        "_rebuild _registry _report _steps _table _timeouts callbacks calling each_pass errors is_loop_thread "
        "lag late observers origins passes rebuilds running slowest slowest_of thread"
    ).split()

    def __init__(
        self,
        registry: Registry,
        is_loop_thread: Callable[[], bool],
        report: Callable[[BaseException, str], None],
        rebuild: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._table = registry.table
        self._poll = registry.poller.poll
        self.is_loop_thread = is_loop_thread
        self._report = report
        self._rebuild = rebuild
        self._timeouts: Iterator[Timer] | None = None  # what is left of the round: its timeouts,
        self._events: Iterator[tuple[int, int]] = iter(())  # then its events
        self._left = False  # is anything left of it?
        self._audit_at = AUDIT_EVERY  # passes
        self._ask_for = FEW
        self._careful = 1  # for so many passes every callback is timed by itself
        self._depth = 0
        self._freeing = False
        self._current: Handle | Timer | None = None  # whose callback is running
        self._outer: list[Handle | Timer | None] = []  # whose callbacks are running further out, when passes nest
        self._muted: list[Handle] = []  # to be unmuted,
        self._late: list[Timer] = []  # timers to be put back,
        self._steps: deque[Callable[[], None]] = deque()  # and steps to be taken,
        self._chores = False  # if there are any, after the outermost pass
        self.each_pass: Callable[[], None] | None = None  # called after every outermost pass
        self.passes = 0
        self.callbacks = 0
        self.errors = 0
        self.rebuilds = 0  # of the poller, to leave ghosts behind
        self.slowest = 0.0  # seconds
        self.slowest_of = NOBODYS
        self.lag = self.late = 0  # ns, how late timeouts were called: the most, and the last one
        self.observers: tuple[Observer, ...] = ()  # see observed.py

    @property
    def in_pass(self) -> bool:
        """Is one under way, or what follows it?"""
        return self._depth > 0 or self._freeing

    @loop_side
    def run_pass(self) -> None:
        """The host's callback.  Runs at most a budget of callbacks; while more is to do the poller's fd stays
        readable.
        """
        registry = self._registry
        if registry.refusal is not None:
            return
        if self._depth:
            self._outer.append(self._current)
        self._depth += 1
        registry.dispatching = True
        try:
            now = monotonic() if self._left else self._begin_round()
            if now is None:
                return
            limit = now + BUDGET_SECONDS
            room = BUDGET_CALLBACKS
            if self._timeouts is not None:
                room = self._fire(self._timeouts, room, limit)
            if room:
                events = self._events
                if self._dispatch(events, room, now, limit):
                    # A nested pass may have begun a round of its own meanwhile, which is then what is left.
                    self._left = events is not self._events or self._timeouts is not None
        finally:
            self.passes += 1
            self._depth -= 1
            if self._depth:
                self._current = self._outer.pop()
                self._settle()
            else:
                self._current = None
                registry.dispatching = False  # before looking at what is to do (see Registry.wake)
                if registry.awake or self._left or self._chores:
                    self._settle()
                if self.each_pass is not None:
                    self.each_pass()

    def _begin_round(self) -> float | None:
        """What is ready, and what is due, now; returns the time, or None where that was one event, and is over.

        The clock is read after the poll, which clears the poller's timer: read before, a deadline between the two
        would be lost.  Where one handle's event is all that was polled, the timer is not due: there is no need to ask.
        """
        registry, table = self._registry, self._table
        if registry.awake:
            registry.awake = False  # before looking: work that is added from here on says so again
            self._chores = True
        if table.touched:
            table.touched.clear()
        if table.ghosts:  # asked after the clearing: a ghost that another thread meets from here on stays touched
            self.rebuilds += 1
            self._rebuild()
        events = self._poll(self._ask_for)
        if table.ghosts:  # met meanwhile: what was polled may be theirs, and what is not is reported in the next round
            events = []
        if table.always_ready or table.shared or self.passes >= self._audit_at:
            events = self._prepare(events)
        if len(events) == 1 and registry.look_at and self._call_lone(events):
            return None
        self._ask_for = BUDGET_CALLBACKS if len(events) >= FEW else FEW
        self._events = iter(events)
        self._left = True
        now = monotonic()
        if now >= registry.look_at:
            self._timeouts = iter(registry.take_due())
        return now

    def _call_lone(self, events: list[tuple[int, int]]) -> bool:
        """Make a round's only call: as `_dispatch`, which nothing is left for.  False, and nothing done, where there is
        anything unusual about it.
        """
        ((fd, bits),) = events
        table = self._table
        if self._outer or self._careful:
            return False
        try:
            handle = table.fds[fd]
        except KeyError:
            return False
        ready = TOLD[handle.mask][bits]
        if not ready or table.touched:  # asked last, see _dispatch
            return False
        self._current = handle
        self.callbacks += 1
        before = monotonic()
        try:
            callback, opaque = handle.callback, handle.opaque
            if handle.unpack:
                callback(handle.id, handle.fd, ready, opaque[0], opaque[1])
            else:
                callback(handle.id, handle.fd, ready, opaque)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # D4: contained, whatever it is
            self._contain(error, handle)
        seconds = monotonic() - before
        if seconds > QUICK:
            self._note_slow(seconds, handle, callback)
        return True

    def _prepare(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The less usual things that make a round's events."""
        table = self._table
        with self._registry.lock:
            if self.passes >= self._audit_at:
                self._audit_at = self.passes + AUDIT_EVERY
                # What fires under a number that is still held may be a ghost, which would fire for ever: make sure,
                # now and then.
                for fd, _ in events:
                    table.check(fd)
            always = list(table.always_ready.items())  # a copy: a signal's handler may come in
            events = events + [(fd, TO_KERNEL[entry.mask]) for fd, entry in always if entry.mask]
            return self._split(events) if table.shared else events

    def _split(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """An event of a number that several handles share becomes one for each of them, under the number -id (see
        handles.py).
        """
        split: list[tuple[int, int]] = []
        for fd, bits in events:
            if fd in self._table.touched:  # what is polled may be the file's before: its handles now are others
                continue
            entry = self._table.fds.get(fd)
            if isinstance(entry, SharedFd) and entry.mask:
                split.extend((-member.id, bits) for member in entry.members)
            else:
                split.append((fd, bits))
        return split

    def _fire(self, timeouts: Iterator[Timer], room: int, limit: float) -> int:
        """Call the round's timeouts that are still due; returns how many callbacks more the pass may make."""
        for timer in timeouts:
            now = monotonic_ns()
            # Before its deadline is looked at: whoever removes it sets that first, then lets go of these.
            callback, opaque = timer.callback, timer.opaque
            deadline = timer.deadline
            if deadline > now:
                continue  # re-armed, disabled or removed since the round began
            if timer in self._outer:  # its callback is running further out: it is put back once that has returned
                self._late.append(timer)
                self._chores = True
                continue
            if deadline:
                self.late = late = now - deadline
                if late > self.lag:
                    self.lag = late
                self._registry.next_period(timer)
            self._current = timer
            self.callbacks += 1
            before = monotonic()
            try:
                if timer.unpack:
                    callback(timer.id, opaque[0], opaque[1])
                else:
                    callback(timer.id, opaque)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # D4: contained, whatever it is
                self._contain(error, timer)
            after = monotonic()
            if after - before > QUICK:
                self._note_slow(after - before, timer, callback)
            room -= 1
            if after > limit or not room:
                return 0
        if self._timeouts is timeouts:  # not a nested pass's, of a later round
            self._timeouts = None
        return room

    def _dispatch(self, events: Iterator[tuple[int, int]], room: int, before: float, limit: float) -> bool:
        """Call the round's handles that are still there and still interested; True when the round is finished.

        A reading of the clock costs a tenth of a quick callback.  So while callbacks are quick they are timed four
        together, and one by one from the first four that were not, for as long as there is reason to.
        """
        touched = self._table.touched
        fds = self._table.fds
        outer = self._outer
        told = TOLD
        start = called = BUDGET_CALLBACKS - room
        together = TOGETHER
        if self._careful:
            self._careful -= 1
            together = 1
        look_after = called + together
        if look_after > BUDGET_CALLBACKS:
            look_after = BUDGET_CALLBACKS
        try:
            for fd, bits in events:
                try:
                    handle = fds[fd]
                except KeyError:
                    if fd not in touched:
                        self._nobody(fd)
                    continue
                ready = told[handle.mask][bits]
                if not ready:
                    if handle.armed >= 0 and not handle.mask:
                        self._take_out(handle)
                    continue
                if touched and handle.fd in touched:  # last: another thread says so before it puts a handle on it
                    continue
                if outer and handle in outer:
                    self._mute(handle)
                    continue
                self._current = handle
                called += 1
                try:
                    callback, opaque = handle.callback, handle.opaque
                    if handle.unpack:
                        callback(handle.id, handle.fd, ready, opaque[0], opaque[1])
                    else:
                        callback(handle.id, handle.fd, ready, opaque)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # D4: contained, whatever it is
                    self._contain(error, handle)
                if called < look_after:
                    continue
                now = monotonic()
                if now - before > QUICK:
                    self._note_slow(now - before, handle if together == 1 else None, callback, together)
                    together = 1
                look_after = called + together
                if look_after > BUDGET_CALLBACKS:
                    look_after = BUDGET_CALLBACKS
                if now > limit or called >= BUDGET_CALLBACKS:
                    return False
                before = now
            untimed = called - look_after + together
            if untimed > 0:  # fewer than are timed together
                now = monotonic()
                if now - before > QUICK:
                    self._note_slow(now - before, handle if untimed == 1 else None, callback, untimed)
            return True
        finally:
            self.callbacks += called - start

    def _note_slow(self, seconds: float, item: Handle | Timer | None, callback: object, together: int = 1) -> None:
        """By name: the function itself would keep alive whatever it is a method of."""
        self._careful = CAREFUL_PASSES
        if seconds > self.slowest:
            self.slowest = seconds
            self.slowest_of = one_of(together) if item is None else origin(item, callback)

    def _take_out(self, handle: Handle) -> None:
        with self._registry.lock:
            self._table.take_out_deaf(handle.fd)

    def _nobody(self, fd: int) -> None:
        """An event under a number that has no handle: a member of a shared one, removed meanwhile, or a ghost (H11)."""
        if fd >= 0 and self._registry.refusal is None:
            with self._registry.lock:
                self._table.haunt(fd)

    def _mute(self, handle: Handle) -> None:
        """Ready again while its own callback runs a nested loop: not called, and not to spin that loop either.

        Where others share the number they go on hearing of it, and the nested loop spins: better than deaf.
        """
        with self._registry.lock:
            if self._table.fds.get(handle.fd) is handle and self._table.mute(handle.fd):
                self._muted.append(handle)
                self._chores = True

    # -- after a pass

    def after_pass(self, step: Callable[[], None]) -> None:
        """Call ``step()`` once after the outermost pass that is under way, or after the next, with a clean stack.  Any
        thread.
        """
        self._steps.append(step)  # first: whoever takes them says first that there are none
        self._chores = True

    def _settle(self) -> None:
        """What a pass leaves behind: frees to call, steps to take, and a poller that stays readable while there is
        more to do.
        """
        registry = self._registry
        if self._depth:
            self._chores = True  # what waits for a callback further out is seen to after the outermost pass
        registry.awake = False
        try:
            if registry.frees:
                self._freeing = True
                self.run_frees(BUDGET_CALLBACKS)
            self._freeing = False
            if registry.refusal is None and self._more_to_do():
                registry.awake = True
                registry.poller.wake()
            if self._chores and not self._depth:
                self._do_chores()  # last: one of the steps may be that another thread makes the passes from here on
        except BaseException:  # on its way out through the host (D4): what it has kept from being done is done next
            self._freeing, self._chores = False, True
            if registry.refusal is None:
                registry.awake = True
                registry.poller.wake()
            raise

    def _do_chores(self) -> None:
        self._chores = False
        if self._muted:
            muted, self._muted = self._muted, []
            with self._registry.lock:
                for handle in muted:
                    self._table.unmute(handle.fd)
        if self._late:
            late, self._late = self._late, []
            with self._registry.lock:
                for timer in late:
                    self._registry.put_back(timer)
        for _ in range(len(self._steps)):
            self._steps.popleft()()

    def _more_to_do(self) -> bool:
        """Would another pass, at once, do something?  What waits for a callback further out to return does not
        count.
        """
        registry, table = self._registry, self._table
        outer = [*self._outer, self._current] if self._depth else self._outer
        if self._left or table.ghosts or registry.awake:
            return True
        if not (registry.frees or registry.timers.every_pass or table.always_ready):
            return False
        with registry.lock:
            return (
                any(item not in outer for _, _, item in list(registry.frees))  # copies: a signal's handler may come in
                or any(timer not in outer for timer in list(registry.timers.every_pass.values()))
                or any(entry.mask and entry not in outer for entry in list(table.always_ready.values()))
            )

    @loop_side
    def run_frees(self, most: int) -> None:
        """Call what ``free`` are owed (H7), but for those whose own callback is still running further out."""
        frees = self._registry.frees
        kept = []
        try:
            while frees and most:
                free, opaque, item = frees.popleft()
                if self._depth and (item is self._current or item in self._outer):
                    kept.append((free, opaque, item))
                    continue
                most -= 1
                try:
                    free(opaque)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # D4, for a free as for a callback
                    self._contain(error, item)
        finally:
            frees.extend(kept)

    def _contain(self, error: BaseException, item: Handle | Timer) -> None:
        """Report once; the handle stays.  A callback that fails may have met a closed fd: make sure that it is not a
        ghost's.
        """
        self.errors += 1
        if isinstance(item, Handle):
            context = f"in the callback of handle {item.id} on fd {item.fd}"
            with self._registry.lock:
                self._table.check(item.fd)
        else:
            context = f"in the callback of timeout {item.id}"
        try:
            self._report(error, context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the error handler's own error must not end the pass
            sys.excepthook(*sys.exc_info())
