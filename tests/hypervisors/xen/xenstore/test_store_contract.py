"""What a connection to xenstored does is the same through libxenstore and by the wire protocol (xen.md 3).

Against the real xenstored, which runs over the hypercall stand-in."""

from __future__ import annotations

import contextlib
import errno
import threading

import pytest
from store_rig import Opened, code, next_watch, readable, until, wait_until

from eventbridge.adapters.hypervisors.xen.xenstore import atomically
from eventbridge.adapters.hypervisors.xen.xenstore.store import RELEASED, Watched
from eventbridge.errors import HypervisorError
from tests.support.patience import PATIENCE


def test_what_is_written_is_read_by_all(opened: Opened) -> None:
    one, other = opened(), opened()
    one.write("/a/b", b"value")
    assert other.read("/a/b") == b"value"
    assert other.read("/a") == b""
    assert other.list("/a") == ["b"]
    assert opened.xen.read("/a/b") == "value"


def test_a_value_is_bytes_of_any_kind(opened: Opened) -> None:
    store = opened()
    for value in (b"", b"\0", bytes(range(256)), b"x" * 4000):
        store.write("/value", value)
        assert store.read("/value") == value


def test_what_does_not_fit_into_a_message_is_refused_and_nothing_is_written(opened: Opened) -> None:
    """io/xs_wire.h: 4096 bytes, of which the path takes some."""
    store = opened()
    store.write("/v", b"x" * (4096 - len("/v") - 1))
    assert code(lambda: store.write("/v", b"y" * (4096 - len("/v")))) == errno.E2BIG
    assert store.read("/v")[:1] == b"x"
    assert code(lambda: store.read("/" + "p" * 5000)) in (errno.E2BIG, errno.EINVAL)


def test_a_directory_may_be_longer_than_a_message(opened: Opened) -> None:
    store = opened()
    names = {f"a-child-with-a-rather-long-name-{number}" for number in range(300)}
    for name in names:
        store.make(f"/many/{name}")
    listed = store.list("/many")
    assert set(listed) == names
    assert len(listed) == len(names)


def test_an_empty_directory_has_no_names(opened: Opened) -> None:
    store = opened()
    store.make("/empty")
    assert store.list("/empty") == []
    store.make("/empty")  # it exists: nothing happens
    assert store.read("/empty") == b""


def test_a_relative_path_is_below_the_callers_own_domain(opened: Opened) -> None:
    """docs/misc/xenstore.txt: /local/domain/N, here of domain 0; a watch answers as it was asked."""
    store = opened()
    store.write("here", b"1")
    assert store.read("/local/domain/0/here") == b"1"
    store.watch("here", "token")
    assert next_watch(store) == Watched("here", "token")
    store.write("/local/domain/0/here/below", b"")
    assert next_watch(store) == Watched("here/below", "token")


def test_what_is_not_there_is_enoent(opened: Opened) -> None:
    store = opened()
    assert code(lambda: store.read("/no")) == errno.ENOENT
    assert code(lambda: store.list("/no")) == errno.ENOENT
    assert code(lambda: store.remove("/no/such/node")) == errno.ENOENT
    assert code(lambda: store.unwatch("/no", "token")) == errno.ENOENT
    assert code(lambda: store.write("/no", b"", transaction=4711)) == errno.ENOENT
    assert code(lambda: store.end(4711)) == errno.ENOENT


@pytest.mark.parametrize("path", ["", "/with space", "/trailing/", "//", "/nul\0nul", "/ü"])
def test_what_is_no_path_is_einval(opened: Opened, path: str) -> None:
    """Also a NUL within, which C would take for its end; and the connection lives on."""
    store = opened()
    assert code(lambda: store.read(path)) == errno.EINVAL
    assert code(lambda: store.write(path, b"")) == errno.EINVAL
    assert store.list("/")


def test_a_refusal_names_the_operation_and_the_connection(opened: Opened) -> None:
    store = opened()
    with pytest.raises(HypervisorError) as caught:
        store.read("/no")
    assert caught.value.operation == "read /no"
    assert str(caught.value) == f"{store.address}: cannot read /no: there is no such thing"


def test_a_watch_fires_once_at_once_even_for_what_is_not_there(opened: Opened) -> None:
    store = opened()
    assert store.next_watch() is None
    assert not readable(store)
    store.watch("/not/there", "token")
    assert next_watch(store) == Watched("/not/there", "token")
    assert store.next_watch() is None
    assert not readable(store)


def test_a_watch_tells_every_change_at_or_below_and_nothing_beside(opened: Opened) -> None:
    store = opened()
    store.watch("/w", "token")
    assert next_watch(store).path == "/w"
    for path in ("/w", "/w/a", "/wide", "/w/a/b", "/other", "/w/end"):
        store.write(path, b"")
    assert until(store, "/w/end") == ["/w", "/w/a", "/w/a/b", "/w/end"]
    assert store.next_watch() is None


def test_the_same_watch_twice_is_eexist_and_the_first_lives_on(opened: Opened) -> None:
    store = opened()
    store.watch("/w", "token")
    assert code(lambda: store.watch("/w", "token")) == errno.EEXIST
    store.watch("/w", "another")
    assert {next_watch(store).token, next_watch(store).token} == {"token", "another"}
    store.write("/w", b"")
    assert {next_watch(store).token, next_watch(store).token} == {"token", "another"}


def test_nothing_is_told_of_a_watch_that_is_removed(opened: Opened) -> None:
    """XS_UNWATCH_FILTER: also what it saw before; and the fd is not readable for it.  Others are told all."""
    store = opened()
    store.watch("/w", "gone")
    store.watch("/w/a", "stays")
    for number in range(10):
        store.write(f"/w/a/{number}", b"")
    store.unwatch("/w", "gone")
    store.write("/w/a/end", b"")
    tokens = []
    while (watched := next_watch(store)).path != "/w/a/end":
        tokens.append(watched.token)
    assert tokens == ["stays"] * 11
    store.unwatch("/w/a", "stays")
    assert not readable(store)
    store.watch("/w", "gone")
    assert next_watch(store) == Watched("/w", "gone")


def test_a_watch_on_everything_is_told_everything(opened: Opened) -> None:
    store = opened()
    store.watch("/", "token")
    store.write("/deep/down/below", b"")
    assert until(store, "/deep/down/below")[0] == "/"


def test_a_transaction_is_seen_by_others_when_it_ends_and_not_before(opened: Opened) -> None:
    store, other = opened(), opened()
    number = store.begin()
    store.write("/t/a", b"new", number)
    assert code(lambda: other.read("/t/a")) == errno.ENOENT
    assert store.read("/t/a", number) == b"new"
    assert store.list("/t", number) == ["a"]
    assert store.end(number)
    assert other.read("/t/a") == b"new"


def test_a_transaction_that_is_given_up_changes_nothing(opened: Opened) -> None:
    store = opened()
    number = store.begin()
    store.make("/t", number)
    assert store.end(number, abort=True)
    assert code(lambda: store.read("/t")) == errno.ENOENT


def test_a_transaction_that_met_another_says_so_and_changes_nothing(opened: Opened) -> None:
    store, other = opened(), opened()
    store.write("/t", b"0")
    number = store.begin()
    store.write("/t", store.read("/t", number) + b"1", number)
    other.write("/t", b"2")
    assert store.end(number) is False
    assert store.read("/t") == b"2"


def test_atomically_tries_again_until_nobody_meets_it(opened: Opened) -> None:
    store, other = opened(), opened()
    store.write("/t", b"0")
    meetings = [b"10", b"20"]

    def add(transaction: int) -> int:
        found = int(store.read("/t", transaction))
        if meetings:
            other.write("/t", meetings.pop(0))
        store.write("/t", b"%d" % (found + 1), transaction)
        return found

    assert atomically(store, add) == 20
    assert store.read("/t") == b"21"


def test_atomically_gives_its_transaction_up_where_the_work_fails(opened: Opened) -> None:
    store = opened()

    def fail(transaction: int) -> None:
        store.write("/t", b"", transaction)
        raise LookupError("the work's own")

    for _ in range(30):  # xenstored allows a client 10 at a time: none is left open
        with pytest.raises(LookupError):
            atomically(store, fail)
    assert code(lambda: store.read("/t")) == errno.ENOENT


def test_a_domain_is_introduced_from_its_introduction_to_its_death(opened: Opened) -> None:
    store = opened()
    assert store.is_introduced(0)
    assert not store.is_introduced(7)
    opened.xen.create(7)
    assert store.is_introduced(7)
    store.watch(RELEASED, "token")
    assert until(store, RELEASED)
    opened.xen.shutdown(7)
    assert until(store, RELEASED)
    assert store.is_introduced(7)
    opened.xen.die(7, forget=False)
    assert until(store, RELEASED)
    assert not store.is_introduced(7)
    assert store.list("/local/domain") == ["0", "7"]


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(opened: Opened) -> None:
    store = opened()
    store.watch("/threads", "token")
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(100):
            path, value = f"/threads/{number}/{turn}", b"%d %d" % (number, turn)
            store.write(path, value)
            if (found := store.read(path)) != value or code(lambda gone=f"{path}/no": store.read(gone)) != errno.ENOENT:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    told = sorted(next_watch(store).path for _ in range(801))
    for thread in threads:
        thread.join()
    assert wrong == []
    assert told == sorted(["/threads", *(f"/threads/{number}/{turn}" for number in range(8) for turn in range(100))])
    assert store.next_watch() is None


def test_after_its_close_it_raises_and_closing_again_does_nothing(opened: Opened) -> None:
    store = opened()
    store.watch("/w", "token")
    store.close()
    store.close()
    calls = (store.fileno, store.next_watch, lambda: store.read("/"), lambda: store.is_introduced(0), store.begin)
    assert [code(call) for call in calls] == [errno.EBADF] * len(calls)


def test_it_may_be_closed_while_other_threads_are_inside(opened: Opened) -> None:
    """The last one out frees it: no crash, nothing left, every one of them told."""
    for _ in range(20):
        store = opened()
        store.watch("/w", "token")
        codes: list[int | None] = []

        def hammer(store=store, codes=codes) -> None:
            while True:
                try:
                    store.write("/w", b"")
                    store.next_watch()
                except HypervisorError as error:
                    codes.append(error.code)
                    return

        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in threads:
            thread.start()
        store.read("/w")
        store.close()
        for thread in threads:
            thread.join()
        assert codes == [errno.EBADF] * 4


def test_a_frozen_xenstored_hangs_who_calls_and_nobody_else(opened: Opened) -> None:
    """Neither the loop's functions nor close(), while a thread waits for an answer that does not come."""
    store = opened()
    store.watch("/w", "token")
    next_watch(store)
    inside, ended = threading.Event(), threading.Event()

    def ask() -> None:
        inside.set()
        with contextlib.suppress(HypervisorError):  # closed, or no such node: it is out
            store.read("/w")
        ended.set()

    opened.xen.freeze()
    try:
        thread = threading.Thread(target=ask)
        thread.start()
        assert inside.wait(PATIENCE)
        assert not ended.wait(0.02)
        assert store.next_watch() is None
        assert not readable(store)
        store.close()
        assert code(store.next_watch) == errno.EBADF
    finally:
        opened.xen.thaw()
    wait_until(ended.is_set)
    thread.join()
