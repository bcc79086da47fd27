"""The vocabulary of masks."""

from __future__ import annotations

import select

import pytest

from eventbridge import Events
from eventbridge.core.masks import ALL, EFFECTIVE, FROM_KERNEL, TO_KERNEL, effective
from tests.support import wanted


def test_the_first_four_are_libvirts() -> None:
    """H2: so that a mask crosses into libvirt unchanged."""
    libvirt = wanted.module("libvirt")
    assert Events.READABLE == libvirt.VIR_EVENT_HANDLE_READABLE
    assert Events.WRITABLE == libvirt.VIR_EVENT_HANDLE_WRITABLE
    assert Events.ERROR == libvirt.VIR_EVENT_HANDLE_ERROR
    assert Events.HANGUP == libvirt.VIR_EVENT_HANDLE_HANGUP


def test_polls_bits_are_epolls() -> None:
    """The tables serve both pollers."""
    for name in ("IN", "OUT", "ERR", "HUP", "PRI"):
        assert getattr(select, f"POLL{name}") == getattr(select, f"EPOLL{name}")


@pytest.mark.parametrize("mask", range(ALL + 1))
def test_a_mask_comes_back_from_the_kernel_as_it_went(mask: int) -> None:
    """H2: but for ERROR and HANGUP, which need not be asked for."""
    asked = mask & ~(Events.ERROR | Events.HANGUP)
    assert FROM_KERNEL[TO_KERNEL[mask]] == asked


def test_every_mask_but_0_hears_of_errors_and_hangups() -> None:
    """H2."""
    assert EFFECTIVE[0] == 0
    assert all(EFFECTIVE[mask] == mask | Events.ERROR | Events.HANGUP for mask in range(1, ALL + 1))


@pytest.mark.parametrize("bad", [-1, ALL + 1, 1 << 40])
def test_nonsense_is_a_value_error_that_says_the_range(bad: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 31"):
        effective(bad)


@pytest.mark.parametrize("bad", ["r", None, 1.0])
def test_what_is_no_number_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match=r"eventbridge\.Events"):
        effective(bad)  # type: ignore[arg-type]  # that is the test
