import pytest

from cometbatch.input.files import Identity
from cometbatch.run_state.partition_size import suggest_partition_rows


@pytest.mark.parametrize(
    ("row_count", "size", "expected"),
    [
        (0, 10, 2_048),
        (1, 0, 2_048),
        (100, 10_000, 2_048),
        (1_000_000, 225_000_000, 2_048),
        (10_000, 80 << 20, 1_000),
        (1_000, 3_000_000_000, 2),
        (10, 300_000_000_000, 1),
    ],
)
def test_the_suggested_partition_is_bounded_in_rows_and_bytes(row_count: int, size: int, expected: int) -> None:
    """At most 2,048 rows and about 8 MiB, but always a row."""
    identity = Identity("t.csv", size, "", row_count, ("a",))
    assert suggest_partition_rows(identity, 100) == expected
    assert suggest_partition_rows(Identity("t.parquet", 1, "", row_count, ("a",), decoded_size=size), 100) == expected


@pytest.mark.parametrize(
    ("max_output_tokens", "expected"),
    [(None, 1_024), (1, 2_048), (4_096, 2_048), (8_192, 1_024), (100_000, 83), (10_000_000, 64)],
)
def test_the_answers_of_a_partition_fit_into_memory(max_output_tokens: int | None, expected: int) -> None:
    """The longest answers come to 32 MiB at most, but a partition never has fewer than 64 rows for their sake."""
    assert suggest_partition_rows(Identity("t.csv", 1_000, "", 100, ("a",)), max_output_tokens) == expected
