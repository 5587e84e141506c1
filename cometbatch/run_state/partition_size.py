"""How many rows a partition has: enough to be worth a file, few enough that its rows and answers fit into memory."""

from cometbatch.input.files import Identity

INPUT_BYTES = 8 * 2**20  # of the rows of one partition: several partitions are open at a time
MAX_ROWS = 2_048  # more rows take no less CPU a row, and more memory
ANSWER_BYTES = 32 * 2**20  # of the answers of one partition, all in memory when its part is written
BYTES_PER_TOKEN = 4  # of an answer's text, about; the estimates of tokens use the same number
MIN_ROWS_FOR_ANSWERS = 64  # with long answers, too: many parts of a few rows are slow to write and to read
RANGE_CALLS = 65_536  # the most calls of the same rows in all slices, of which one journal tells
MIN_ROWS_OF_RANGE = 64  # with many slices, too
MAX_ROWS_UNCAPPED = 1_024  # where answers have no cap: at 8,000 tokens each they just fill 32 MiB


def suggest_partition_rows(identity: Identity, max_output_tokens: int | None, slices: int = 1) -> int:
    """Rows whose input and answers are within the bounds above; at least 1, and always the same for the same input.

    `max_output_tokens` is the cap on one answer, `None` where there is none. `slices`: how many the run begins with.
    """
    if max_output_tokens is None:
        most = MAX_ROWS_UNCAPPED
    else:
        most = max(MIN_ROWS_FOR_ANSWERS, ANSWER_BYTES // (BYTES_PER_TOKEN * max_output_tokens))
    return min(identity.rows_within(INPUT_BYTES), MAX_ROWS, most, range_rows(slices))


def range_rows(slices: int) -> int:
    """The most rows of a range, whose partitions are open together in all slices."""
    return max(MIN_ROWS_OF_RANGE, RANGE_CALLS // slices)
