"""`python -m noisychannel`."""

from noisychannel.cli import main

main()
