"""`python -m cometbatch` is the command `cometbatch`."""

from cometbatch.cli import main

if __name__ == "__main__":
    main()
