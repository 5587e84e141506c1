"""The command `cometbatch`, also as `python -m cometbatch`. It begins here, before anything that takes long is loaded.

Guards that a signal while the command loads ends it with a line and its exit code: Ctrl-C with no traceback, and
SIGTERM also where the command is the first process of a container, for which the system ignores what has no handler.
"""

import _signal as signal  # type: ignore[import-not-found]  # built in; `signal` itself takes 4 ms, unguarded
import os
import sys
import time

ENDINGS = {"SIGINT": "Interrupted.", "SIGTERM": "Terminated.", "SIGHUP": "Hung up."}
"""What a signal that ends the command is called, where the system has it."""
ENDED_BY_SIGNAL = 128  # as in `process`, which is not loaded yet: the exit code is this and the signal's number


def main() -> None:
    """Load the command line and hand over. A signal that is ignored (by `nohup`, a background job) stays ignored."""
    for name in ENDINGS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _end_at_once)
    from cometbatch.cli import main as run_command  # noqa: PLC0415 - loaded under the handler

    run_command()


def _end_at_once(number: int, _frame: object) -> None:
    """End without unwinding: there is nothing to tidy up, and an exception inside of an import may be lost."""
    code = ENDED_BY_SIGNAL + number
    words = next(words for name, words in ENDINGS.items() if getattr(signal, name, None) == number)
    try:
        os.write(2, _as_json(words, code) if "--log-format=json" in "=".join(sys.argv) else f"{words}\n".encode())
    finally:
        os._exit(code)


def _as_json(words: str, code: int) -> bytes:
    """The same as an event of the log."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    said = f'"event": "error", "message": "{words}", "exit_code": {code}'
    return f'{{"ts": "{at}", "level": "error", {said}}}\n'.encode()


if __name__ == "__main__":
    main()
