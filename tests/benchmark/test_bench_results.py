"""What `eventbridge bench` makes of its measurements: medians, ratios, verdicts, table, JSON and plot.  Pure, on
invented figures.
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as xml

import pytest

from eventbridge.benchmark.cells import number, ratio
from eventbridge.benchmark.contenders import CONTENDERS
from eventbridge.benchmark.hosts import HOSTS
from eventbridge.benchmark.latency import quantile
from eventbridge.benchmark.plot import COLOURS, svg
from eventbridge.benchmark.results import Results
from eventbridge.benchmark.table import render
from eventbridge.benchmark.targets import TARGETS
from eventbridge.benchmark.workloads import WORKLOADS

RATE = "per_cpu_second"


def of(**rates: list[float | None]) -> Results:
    """Results of the workload ready-10, a rate a round for each contender, "_" standing for "@"."""
    results = Results()
    for contender, values in rates.items():
        for round, value in enumerate(values):
            results.add("ready-10", contender.replace("_", "@").replace("libvirt@c", "libvirt-c"), round, {RATE: value})
            results.rounds = round + 1
    return results


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    """A machine that is twice as slow in one round is that for both: the ratio does not notice."""
    results = of(ours_asyncio=[80, 40, 800], libvirt_c=[100, 50, 1000])
    assert results.ratio("ready-10", RATE, "ours@asyncio", "libvirt-c") == pytest.approx(0.8)
    assert results.median("ready-10", RATE, "ours@asyncio") == 80


def test_a_round_that_one_of_the_two_has_not_got_is_not_compared() -> None:
    results = of(ours_asyncio=[80, 90, 1], libvirt_c=[100, 100])
    assert results.ratio("ready-10", RATE, "ours@asyncio", "libvirt-c") == pytest.approx(0.85)
    assert results.ratio("ready-10", RATE, "ours@asyncio", "direct@asyncio") is None


def test_what_never_came_about_is_never_and_has_no_ratio() -> None:
    results = Results()
    for round in range(3):
        results.add("wake", "libvirtaio@asyncio", round, {"p50": None})
        results.add("wake", "ours@asyncio", round, {"p50": 40.0})
    assert results.median("wake", "p50", "libvirtaio@asyncio") == math.inf
    assert results.ratio("wake", "p50", "ours@asyncio", "libvirtaio@asyncio") is None
    assert "never" in render(results)
    by_contender = {line["contender"]: line for line in results.to_json()["results"]}
    assert by_contender["libvirtaio@asyncio"]["median"] is None
    assert by_contender["libvirtaio@asyncio"]["samples"] == [None, None, None]


@pytest.mark.parametrize(("found", "met"), [(0.79, False), (0.8, True), (0.81, True)])
def test_a_target_of_a_ratio_is_met_from_its_bound_on(found: float, met: bool) -> None:
    verdicts = of(ours_asyncio=[found * 1000], libvirt_c=[1000.0]).verdicts()
    judged = {(verdict.target.contender, verdict.target.rival): verdict.met for verdict in verdicts}
    assert judged["ours@asyncio", "libvirt-c"] is met
    assert judged["ours@asyncio", "libvirtaio@asyncio"] is None, "its rival was not measured: neither met nor missed"


@pytest.mark.parametrize(("found", "met"), [(99.0, True), (100.0, True), (101.0, False), (None, False)])
def test_a_target_of_less_is_met_up_to_its_bound(found: float | None, met: bool) -> None:
    results = Results()
    results.add("wake", "ours@asyncio", 0, {"p50": found})
    (verdict,) = results.verdicts()
    assert verdict.met is met


def wakes(bridge: list[float | None], watch: list[float | None]) -> Results:
    """Results of the workload host-1 on trio, in microseconds a wake."""
    results = Results()
    for contender, values in (("bridge@trio", bridge), ("watch@trio", watch)):
        for round, value in enumerate(values):
            results.add("host-1", contender, round, {"wake": value})
    return results


def test_what_is_more_is_the_median_of_the_rounds_differences() -> None:
    results = wakes([9.0, 12.0, 18.0, None], [8.0, 10.0, 17.5, 7.0])
    assert results.more("host-1", "wake", "bridge@trio", "watch@trio") == 1.5, "the last never came about"
    assert wakes([9.0], []).more("host-1", "wake", "bridge@trio", "watch@trio") is None


@pytest.mark.parametrize(("bridge", "met"), [([8.5], True), ([9.2], True), ([9.4], False), ([], None)])
def test_a_target_of_a_difference_is_met_up_to_its_bound(bridge: list[float | None], met: bool | None) -> None:
    """8 us a wake of trio's own: 1.3 us more are allowed, and the ratio to it is not what is judged."""
    results = wakes(bridge, [8.0])
    verdicts = {verdict.target.contender: verdict for verdict in results.verdicts() if verdict.target.more}
    assert verdicts["bridge@trio"].met is met
    assert verdicts["bridge@glib"].met is None
    assert any("<= 1.30 us more" in line for line in render(results).splitlines())


def test_only_the_targets_of_what_was_measured_are_judged() -> None:
    assert {verdict.target.workload for verdict in of(ours_asyncio=[1.0]).verdicts()} == {"ready-10"}
    assert Results().verdicts() == []


def test_every_target_is_of_a_metric_and_contenders_that_there_are() -> None:
    """A name mistyped in the table of targets would never be judged."""
    for target in TARGETS:
        WORKLOADS[target.workload].metric(target.metric)
        assert target.contender in WORKLOADS[target.workload].contenders
        assert target.rival is None or target.rival in CONTENDERS[target.contender].rivals


def test_every_rival_is_a_contender_and_every_contender_has_a_workload_and_a_colour_where_it_is_drawn() -> None:
    measured = {contender for workload in WORKLOADS.values() for contender in workload.contenders}
    hosts = {f"{what}@{host}" for host in HOSTS for what in ("bridge", "watch")}  # in a table of their own
    assert measured == set(CONTENDERS) == set(COLOURS) | hosts
    assert not hosts & set(COLOURS)
    assert {rival for contender in CONTENDERS.values() for rival in contender.rivals} < set(CONTENDERS)


def test_the_table_names_every_contender_with_median_spread_and_ratio_and_says_what_is_met() -> None:
    results = of(ours_asyncio=[700e3, 810e3, 830e3], libvirt_c=[1e6, 1e6, 1e6])
    results.left_out["ours@uvloop"] = "uvloop is not installed: pip install eventbridge[uvloop]"
    text = render(results)
    (line,) = [line for line in text.splitlines() if line.startswith("  ours@asyncio")]
    assert line.split() == ["ours@asyncio", "810", "k", "700", "k", "830", "k", "0.81x"]
    assert any(line.split()[-2:] == ["0.81x", "met"] for line in text.splitlines())
    assert "uvloop is not installed" in text, "a rival that is missing is never left out silently"


def test_the_columns_of_the_table_line_up() -> None:
    lines = render(of(ours_asyncio=[7.0], libvirt_c=[1e6])).splitlines()
    first = next(index for index, line in enumerate(lines) if "least" in line)
    words = (("median", lines[first]), (" 7", lines[first + 1]), ("1 M", lines[first + 2]))
    assert len({line.index(word) + len(word) for word, line in words}) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.004, "0.004"),
        (0.784, "0.78"),
        (28.13, "28.1"),
        (312.4, "312"),
        (1567, "1567"),
        (23_412, "23.4 k"),
        (999_900, "1.00 M"),
        (1_234_567, "1.23 M"),
        (math.inf, "never"),
        (None, "-"),
    ],
)
def test_a_number_is_shown_with_the_digits_that_count(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_ratio_that_is_missing_is_a_dash() -> None:
    assert (ratio(None), ratio(1.4), ratio(102.3)) == ("-", "1.40x", "102x")


def test_the_json_has_every_sample_and_is_json() -> None:
    results = of(ours_asyncio=[1.0, 3.0, 2.0], libvirt_c=[1.0, 1.0, 1.0])
    read = json.loads(json.dumps(results.to_json(), allow_nan=False))
    ours = next(line for line in read["results"] if line["contender"] == "ours@asyncio")
    assert (ours["samples"], ours["median"], ours["min"], ours["max"]) == ([1.0, 3.0, 2.0], 2.0, 1.0, 3.0)
    assert ours["ratios"] == {"libvirt-c": 2.0}
    assert any(target["met"] for target in read["targets"])


def test_the_plot_is_xml_with_a_mark_for_every_contender_but_the_reference() -> None:
    root = xml.fromstring(svg(of(ours_asyncio=[2.0], libvirtaio_asyncio=[0.5], libvirt_c=[1.0])))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["ours@asyncio: 2x", "libvirtaio@asyncio: 0.5x"]


def test_the_plot_of_what_cannot_be_compared_is_still_a_picture() -> None:
    assert xml.fromstring(svg(of(ours_asyncio=[2.0]))).tag.endswith("svg")
    assert xml.fromstring(svg(Results())).tag.endswith("svg")


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (51.0, 100.0, 7.0)
