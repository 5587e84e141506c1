"""The command `cometbatch`, also as `python -m cometbatch`. It begins here, before anything that takes long is loaded.

Guards that Ctrl-C while the command loads ends it with a line and exit code 130, and not with a traceback.
"""

import _signal as signal  # type: ignore[import-not-found]  # built in; `signal` itself takes 4 ms, unguarded
import os
import sys
import time

INTERRUPTED = 130  # as in `cli`, which is not loaded yet


def main() -> None:
    """Load the command line and hand over. A Ctrl-C that is ignored (a shell's background job) stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    from cometbatch.cli import main as run_command  # noqa: PLC0415 - loaded under the handler

    run_command()


def _end_at_once(_number: int, _frame: object) -> None:
    """End without unwinding: there is nothing to tidy up, and an exception inside of an import may be lost."""
    try:
        os.write(2, _as_json() if "--log-format=json" in "=".join(sys.argv) else b"Interrupted.\n")
    finally:
        os._exit(INTERRUPTED)


def _as_json() -> bytes:
    """The same as an event of the log."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    said = f'"event": "error", "message": "Interrupted.", "exit_code": {INTERRUPTED}'
    return f'{{"ts": "{at}", "level": "error", {said}}}\n'.encode()


if __name__ == "__main__":
    main()
