"""``python -m eventbridge``: the same program as ``eventbridge``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
