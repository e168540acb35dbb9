"""`python -m eventq`: the command line."""

import sys

from eventq.cli import main

if __name__ == "__main__":
    sys.exit(main())
