"""``python -m eventbridge``: the same program as ``eventbridge``."""

import sys

from eventbridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
