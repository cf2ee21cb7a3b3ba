"""`python -m unsample`."""

from __future__ import annotations

import sys

from unsample.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
