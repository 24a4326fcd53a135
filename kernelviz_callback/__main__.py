"""``python -m kernelviz_callback``: the command line, if ``kernelviz`` is not on the path."""

import sys

from kernelviz_callback.cli import main

if __name__ == "__main__":
    sys.exit(main())
