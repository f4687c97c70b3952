"""`python -m braincorl VERB`, the same as `braincorl VERB`."""

import sys

from braincorl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
