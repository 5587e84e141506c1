"""A job's own regular expressions, on an engine of linear time (Rust's, by way of polars)."""


class PatternError(ValueError):
    """A pattern can't be used; the message says why."""


def problem_of(pattern: str) -> str | None:
    """Why a pattern can't be used, in words; None where it can. Look-around and back-references can't be."""
    raise NotImplementedError
