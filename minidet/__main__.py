"""`python -m minidet` is the command `minidet`."""

import sys

if __name__ == "__main__":
    try:
        from minidet.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before the command could see to it
        sys.exit(130)
