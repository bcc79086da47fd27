"""Opening a simulation: what may be asked for, and the room it needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
from sim_watch import Watched

import eventbridge
from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver, fds_needed
from eventbridge.adapters.hypervisors.sim.uri import Parameters, parse
from eventbridge.errors import HypervisorError
from eventbridge.hypervisor import lookup
from tests.support.descriptors import open_fds
from tests.support.patience import PATIENCE

Watch = Callable[..., Watched]


def test_what_is_not_said_has_a_default() -> None:
    """Ten domains, seed 1, a rate for eyes, no end."""
    assert parse("sim:///default") == Parameters(domains=10, seed=1, rate=20, events=None)
    assert parse("sim:///default") == Parameters(10, 1, 20, None, latency=0, memory=65_536, world=None)
    assert parse("sim:///default?latency=5&memory=8&world=a.B-c_1") == Parameters(10, 1, 20, None, 5, 8, "a.B-c_1")
    assert parse("sim:///default?seed=5&domains=7&events=0&rate=9") == Parameters(7, 5, 9, 0)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("sim:///default?domains=0", "domains must be from 1 to 10000; found 0"),
        ("sim:///default?domains=10001", "domains must be from 1 to 10000; found 10001"),
        ("sim:///default?domains=ten", "domains must be a whole number from 1 to 10000; found 'ten'"),
        ("sim:///default?domains=", "domains must be a whole number from 1 to 10000; found ''"),
        ("sim:///default?domains", "domains must be a whole number from 1 to 10000; found ''"),
        ("sim:///default?seed=-1", "seed must be a whole number from 0 to 9223372036854775807; found '-1'"),
        ("sim:///default?seed=1.5", "seed must be a whole number"),
        ("sim:///default?seed=" + "9" * 6000, "seed must be from 0 to"),
        ("sim:///default?seed=1&seed=2", "seed is given twice"),
        ("sim:///default?rate=0", "rate must be from 1 to 100000; found 0"),
        ("sim:///default?latency=60001", "latency must be from 0 to 60000; found 60001"),
        ("sim:///default?latency=1ms", "latency must be a whole number from 0 to 60000; found '1ms'"),
        ("sim:///default?memory=0", "memory must be from 1 to 1099511627776; found 0"),
        ("sim:///default?world=", "world must be 1 to 64 letters, digits, '_', '.' or '-'; found ''"),
        ("sim:///default?world=a%20b", "world must be 1 to 64 letters"),
        ("sim:///default?world=" + "a" * 65, "world must be 1 to 64 letters"),
        ("sim:///default?world=a&world=b", "world is given twice"),
        ("sim:///default?guests=3", "no parameter is called 'guests'; there are: domains, seed, rate, events"),
        ("sim:///", "the simulated hypervisor's URI is sim:///default"),
        ("sim:///other", "the simulated hypervisor's URI is sim:///default"),
        ("sim://host/default", "the simulated hypervisor's URI is sim:///default"),
        ("sim+ssh:///default", "the simulated hypervisor's URI is sim:///default"),
        ("sim://[/default", "this is no URI"),
    ],
)
def test_what_is_not_understood_is_one_clear_error(uri: str, complaint: str) -> None:
    """Bad input: it names the URI and what is wrong with it, on one line, and nothing is registered."""
    before = open_fds()
    with Bridge("select") as bridge:
        with pytest.raises(HypervisorError) as caught:
            driver.subscribe(uri, bridge, lambda event: None)
        assert str(caught.value).startswith(f"{uri}: {complaint}")
        assert "\n" not in str(caught.value)
        assert caught.value.operation == "open"
        assert bridge.is_empty()
    assert open_fds() == before


def test_it_is_the_driver_of_its_scheme_and_says_what_it_is() -> None:
    """``sim:`` finds it; its version says that it is simulated."""
    assert lookup.find("sim:///default") is driver
    assert driver.version() == f"simulated, part of eventbridge {eventbridge.__version__}"


def test_ten_thousand_domains_open_and_close_without_leaking(watch: Watch) -> None:
    """10,000 domains within 20,000 fds, raised to from 1024; all closed with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        before = len(open_fds())
        watched = watch("domains=10000&rate=20000")
        assert len(open_fds()) - before >= fds_needed(10_000) == 10_100
        watched.until(3000)
        watched.subscription.close()
        assert len(open_fds()) - before < 10, "but for the bridge's own"
        assert not watched.errors
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


TOO_LOW = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver

seen = []
with Bridge("select") as bridge:
    simulation = driver.subscribe("sim:///default?domains=400&rate=5000", bridge, seen.append)
    assert bridge.run(lambda: len(seen) >= 10, 20)
    simulation.close()
soft, still = resource.getrlimit(resource.RLIMIT_NOFILE)
assert 400 < soft < 600 and still == hard, (soft, still)
"""


def test_a_soft_limit_is_raised_as_far_as_needed() -> None:
    """RLIMIT_NOFILE: no farther than needed.  In a process of its own, whose fds are few."""
    ran = subprocess.run([sys.executable, "-c", TOO_LOW], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr


TOO_SMALL = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
from eventbridge import Bridge
from eventbridge.adapters.hypervisors.sim.driver import driver
from eventbridge.errors import HypervisorError

with Bridge("select") as bridge:
    before = os.listdir("/proc/self/fd")
    try:
        driver.subscribe("sim:///default?domains=1000", bridge, print)
    except HypervisorError as error:
        print(error)
        fits = str(error).partition("at most ")[2].partition(" ")[0]
    assert bridge.is_empty() and os.listdir("/proc/self/fd") == before
    driver.subscribe(f"sim:///default?domains={fits}", bridge, print).close()
"""


def test_domains_that_do_not_fit_are_refused_with_numbers() -> None:
    """Nothing half-registered, and as many as it says would fit do.  In a process of its own, as a hard limit cannot
    be raised again."""
    ran = subprocess.run(
        [sys.executable, "-c", TOO_SMALL], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stderr
    assert "1000 domains need 1010 file descriptors beside the" in ran.stdout
    assert "the hard limit (ulimit -Hn) is 300: raise it to" in ran.stdout
