"""The exit codes of the commands. An error of the package has its own, which is one of these."""

ALL_SUCCEEDED = 0
UNEXPECTED = 1
WRONG_USAGE = 2
SOME_ROWS_FAILED = 3
INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129

EXIT_CODES = (
    (ALL_SUCCEEDED, "every row succeeded, or all but what `accept` allows"),
    (
        UNEXPECTED,
        "an unexpected error or a failing disk (both resumable), a damaged run directory, or no catalog (`models`)",
    ),
    (WRONG_USAGE, "the command, the job file or the input is wrong; nothing was sent"),
    (
        SOME_ROWS_FAILED,
        (
            "finished, with more failed or incomplete rows than `accept` allows (none without it); the result is "
            "there, but after --limit (`verify`: a check failed; `run` and `score`: a Python scorer failed on more "
            "than 10 % of the rows)"
        ),
    ),
    (4, "stopped at the budget; resumable with a higher one"),
    (5, "the service refuses the job (key, credit, model, address) or ignores its `response`; resumable"),
    (6, "another process has the run"),
    (HUNG_UP, "hung up (SIGHUP: the terminal was closed); resumable"),
    (INTERRUPTED, "interrupted (Ctrl-C); resumable"),
    (TERMINATED, "terminated (SIGTERM); resumable"),
)
