"""The command line: arguments → calls."""

from noisychannel.cli.main import main

__all__ = ["main"]
