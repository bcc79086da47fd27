"""Every rule of eventbridge's contract, on a tinyloop: conftest.py says how one is made."""

from eventbridge.testing import HostConformance


class TestTinyloop(HostConformance):
    library = "tinyloop"
