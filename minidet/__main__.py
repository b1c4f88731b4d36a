"""`python -m minidet` is the command `minidet`."""

import sys

from minidet.cli import main

sys.exit(main())
