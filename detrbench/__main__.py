"""`python -m detrbench`."""

import sys

from detrbench.cli import main

sys.exit(main())
