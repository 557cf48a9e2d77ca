"""`python -m ftkit`: the command `ftkit`, where its folder is not on the PATH."""

import sys

from ftkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
