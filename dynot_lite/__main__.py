"""``python -m dynot_lite``: the command line of the companion."""

import sys

from dynot_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
