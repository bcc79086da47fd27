"""`eventbridge bench` itself: the order of its measurements, its command line, and every workload once, with the
smallest of budgets.  No figure's size is asserted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventbridge.benchmark import contenders
from eventbridge.benchmark.contenders import CONTENDERS
from eventbridge.benchmark.eventfds import Unfit
from eventbridge.benchmark.host_rigs import CallbackRig, Resume
from eventbridge.benchmark.hosts import HOSTS, SELECT_LIMIT
from eventbridge.benchmark.interleave import interleave, launch_worker, plan
from eventbridge.benchmark.libvirtd import NoLibvirtd, private_libvirtd
from eventbridge.benchmark.results import Results
from eventbridge.benchmark.rigs import Figures, handles_only
from eventbridge.benchmark.workloads import HOST_WORKLOADS, WORKLOADS
from eventbridge.cli import bench
from tests.support import wanted

pytestmark = pytest.mark.slow

CELLS = [("ready-1", "ours@asyncio"), ("ready-1", "libvirt-c"), ("ready-10", "ours@asyncio")]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.register(parser.add_subparsers())
    return parser.parse_args(["bench", *arguments])


def quiet(*_: object) -> None:
    """No progress."""


class Launcher:
    """In a worker's place: notes what it is asked for, and answers from a list, or always the same."""

    def __init__(self, *answers: dict[str, Any] | BaseException) -> None:
        self.asked: list[tuple[str, str]] = []
        self._answers = list(answers)

    def __call__(self, workload: str, contender: str, budget: float) -> dict[str, Any]:
        self.asked.append((workload, contender))
        answer = self._answers.pop(0) if self._answers else {"figures": {"per_cpu_second": 1.0}}
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_every_round_measures_every_cell_once_and_every_second_one_the_other_way_round() -> None:
    launch, results = Launcher(), Results()
    interleave(CELLS, 3, 0.1, launch, results, quiet)
    assert launch.asked == [*CELLS, *reversed(CELLS), *CELLS]
    assert results.rounds == 3
    assert results.samples("ready-1", "per_cpu_second", "libvirt-c") == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [({"left_out": "does not fit"}, "does not fit"), ({"failed": "ZeroDivisionError"}, "failed: ZeroDivisionError")],
)
def test_a_cell_that_cannot_be_measured_is_left_out_with_its_reason_and_not_tried_again(
    answer: dict[str, Any], why: str
) -> None:
    launch, results = Launcher(answer), Results()
    interleave(CELLS, 2, 0.1, launch, results, quiet)
    assert launch.asked.count(CELLS[0]) == 1
    assert launch.asked.count(CELLS[1]) == 2
    assert results.left_out == {"ready-1 ours@asyncio": why}


def test_an_interrupt_keeps_what_there_is_so_far() -> None:
    results = Results()
    interleave(CELLS, 5, 0.1, Launcher({"figures": {"per_cpu_second": 2.0}}, KeyboardInterrupt()), results, quiet)
    assert results.interrupted
    assert list(results.series) == [("ready-1", "per_cpu_second", "ours@asyncio")]


def test_a_rival_that_is_not_installed_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda module: None if module == "uvloop" else module)
    results = Results()
    cells = plan(["ready-1"], CONTENDERS, results)
    assert ("ready-1", "ours@asyncio") in cells
    assert not [contender for _, contender in cells if contender.endswith("@uvloop")]
    assert results.left_out["libvirtaio@uvloop"] == "uvloop is not installed: pip install eventbridge[uvloop]"


def test_a_worker_that_fails_says_why_in_one_line() -> None:
    found = launch_worker("ready-1", "no such contender", 0.01)
    assert found == {"failed": "KeyError: 'no such contender'"}


# -- every workload, on the contender that everybody has or the one that libvirt needs


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[str]:
    try:
        with private_libvirtd() as uri:
            yield uri
    except NoLibvirtd as reason:
        wanted.absent(str(reason))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_gives_every_figure_it_promises(workload: str, request: pytest.FixtureRequest) -> None:
    contender = WORKLOADS[workload].contenders[0]
    reason = CONTENDERS[contender].missing()
    if reason is not None:
        wanted.absent(reason)
    uri = request.getfixturevalue("libvirtd") if WORKLOADS[workload].needs_libvirtd else None
    found = launch_worker(workload, contender, 0.01, uri)
    if "limit is" in found.get("left_out", ""):
        return  # a machine whose limit of open files is too low is told so, which is the promise then
    assert set(found["figures"]) == {metric.key for metric in WORKLOADS[workload].metrics}
    assert all(isinstance(value, float | int) for value in found["figures"].values())


@pytest.mark.parametrize("contender", CONTENDERS)
def test_every_contender_dispatches(contender: str) -> None:
    reason = CONTENDERS[contender].missing()
    if reason is not None:
        wanted.absent(reason)
    workload = next(name for name in ("ready-10", "core-10", "host-10") if contender in WORKLOADS[name].contenders)
    figures = launch_worker(workload, contender, 0.01)["figures"]
    assert figures["per_second"] > 0


@pytest.mark.parametrize("contender", [name for name in CONTENDERS if name in WORKLOADS["timers"].contenders])
@pytest.mark.parametrize("workload", ["handles", "timers"])
def test_every_contender_adds_updates_and_removes(workload: str, contender: str) -> None:
    reason = CONTENDERS[contender].missing()
    if reason is not None:
        wanted.absent(reason)
    found = launch_worker(workload, contender, 0.01)
    assert "limit is" in found.get("left_out", "") or all(rate > 0 for rate in found["figures"].values()), found


# -- the hosts


def test_select_is_told_why_it_cannot_watch_a_high_fd_and_poll_watches_it() -> None:
    api = HOSTS["select"].with_watches().api
    with pytest.raises(Unfit, match=r"select\(2\) takes no fd of 1024 or above"):
        api.add_handle(SELECT_LIMIT, 1, quiet, None)
    HOSTS["poll"].with_watches().api.add_handle(SELECT_LIMIT, 1, quiet, None)  # poll(2) does not mind: no exception


class QueueLoop:
    """A stand-in for a loop of callbacks that loses what leaves them: it calls what it was given, in that order."""

    def __init__(self) -> None:
        self._due: list[Resume] = []
        self._going = True

    def later(self, seconds: float, callback: Resume) -> None:
        self._due.append(callback)

    def run(self) -> None:
        while self._going:
            self._due.pop(0)()

    def stop(self) -> None:
        self._going = False

    def rig(self) -> CallbackRig:
        return CallbackRig(handles_only(lambda *_: 1), self.later, self.run, self.stop)


def test_a_measurement_on_a_loop_of_callbacks_sleeps_waits_for_signals_and_gives_its_figures() -> None:
    loop = QueueLoop()

    async def work(rig: CallbackRig) -> Figures:
        await rig.sleep(0.1)
        signal = rig.signal()
        loop.later(0.0, signal.set)
        await signal.wait()
        await signal.wait()  # it is set: nothing to wait for
        return {"rate": 7.0}

    assert loop.rig().run(work) == {"rate": 7.0}


def test_what_goes_wrong_in_a_measurement_comes_out_of_the_loop_that_would_lose_it() -> None:
    async def work(rig: CallbackRig) -> Figures:
        await rig.sleep(0.1)
        rig.api.remove_handle(1)
        raise AssertionError("a contender that only adds handles has removed one")

    with pytest.raises(NotImplementedError, match="adds handles"):
        QueueLoop().rig().run(work)


# -- the command


@pytest.mark.parametrize(
    ("arguments", "hosts"), [([], False), (["--quick"], False), (["--hosts"], True), (["--hosts", "--quick"], True)]
)
def test_the_hosts_are_measured_where_that_is_asked_for_and_then_alone(
    arguments: list[str], hosts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[str] = []

    def note(workloads: Iterable[str], *_: object) -> list[Any]:
        planned.extend(workloads)
        return []

    monkeypatch.setattr(bench, "plan", note)
    bench.run(parse(*arguments))
    assert planned
    assert all((name in HOST_WORKLOADS) is hosts for name in planned)


def test_the_hosts_table_has_a_row_for_every_host_and_says_what_a_wake_costs_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(workload: str, contender: str, budget: float, libvirtd: str | None = None) -> dict[str, Any]:
        wake = 3.0 if contender.startswith("bridge@") else 2.0
        return {"figures": {"per_cpu_second": 1e6 / wake, "per_second": 1e6 / wake, "wake": wake}}

    monkeypatch.setattr(bench, "launch_worker", launch)
    assert bench.run(parse("--hosts", "--rounds", "1")) == 0
    shown = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in shown if line.startswith("  ")}
    for name in (name for name in HOSTS if CONTENDERS[f"bridge@{name}"].missing() is None):
        assert rows[name] == ["0.67x"] * len(HOST_WORKLOADS) + ["3", "2", "1"]
    assert not [line for line in shown if "median" in line.split()], "no block of its own for each workload"


def test_the_command_measures_draws_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bench.svg"
    assert bench.run(parse("--only", "core-10", "--quick", "--rounds", "1", "--plot", str(picture))) == 0
    shown = capsys.readouterr()
    assert "core-10: 10 ready, the core alone" in shown.out
    assert "medians of 1 rounds" in shown.out
    assert picture.read_text().startswith("<svg")
    assert str(picture) in shown.err


def test_json_is_one_object_on_standard_output_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(parse("--only", "core-1", "--quick", "--rounds", "1", "--json")) == 0
    assert {line["contender"] for line in json.loads(capsys.readouterr().out)["results"]} == {"ours", "epoll"}


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_a_missed_target_is_an_exit_code_only_where_that_is_asked_for(
    strict: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(workload: str, contender: str, budget: float, libvirtd: str | None = None) -> dict[str, Any]:
        return {"figures": {"per_cpu_second": 1.0 if contender == "ours" else 2.0}}

    monkeypatch.setattr(bench, "launch_worker", launch)
    assert bench.run(parse("--only", "core-100", *strict)) == code
    assert "MISSED" in capsys.readouterr().out


def test_the_list_names_every_workload_and_contender(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(parse("--list")) == 0
    shown = capsys.readouterr().out.split()
    assert set(WORKLOADS) | set(CONTENDERS) <= set(shown)


def test_a_names_beginning_stands_for_all_that_begin_so() -> None:
    assert parse("--only", "core").only == [["core-1", "core-10", "core-100", "core-1000"]]
    assert parse("--only", "ready-1").only == [["ready-1"]], "a whole name is itself alone"


@pytest.mark.parametrize("wrong", [("--only", "nonsense"), ("--contenders", "nobody"), ("--rounds", "0")])
def test_what_is_not_known_is_a_usage_error_that_says_what_there_is(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(*wrong)
    assert refused.value.code == 2
    assert wrong[1] in capsys.readouterr().err


def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = Launcher()
    monkeypatch.setattr(bench, "launch_worker", launch)
    assert bench.run(parse("--plot", str(tmp_path / "missing" / "bench.svg"))) == 1
    assert not launch.asked
    assert "cannot write" in capsys.readouterr().err
