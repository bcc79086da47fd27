"""What the conformance rows of this project's own hosts share."""

from eventbridge.testing import HostConformance
from tests.support.patience import PATIENCE

HostConformance.patience = PATIENCE  # the kit's 10 s are for people at work on a host; ours run beside much else
