"""The version, as in setup.cfg (a test holds the two together)."""

__version__ = "0.1.0"
