"""A walk over all calls that have no outcome yet: what each would send, and what they come to in all."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.commands.checked import Checked, prompt_key
from cometbatch.commands.looks import PLAN_BYTES, Looks
from cometbatch.commands.plan_budget import BudgetWalk
from cometbatch.commands.plan_costs import Requests
from cometbatch.commands.reusing import AsTaken
from cometbatch.commands.targets import row_makers
from cometbatch.input.files import Identity
from cometbatch.input.table import partitions
from cometbatch.input.values import row_values
from cometbatch.records import CallRequest, Failed, Outcome, Partition, PriceBook, Tally
from cometbatch.results.answered import AnsweredCalls
from cometbatch.results.columns import OUTCOMES
from cometbatch.results.reuse import EarlierAnswers
from cometbatch.run_state.manifest import PricedTarget, Slice
from cometbatch.run_state.progress import Progress
from cometbatch.run_state.run import Run
from cometbatch.runner.row_maker import ASSUMED_OUTPUT_TOKENS

IMAGES_LOOKED_AT: Final = 1_000
"""Rows whose images `plan` opens; those of the rows after these are looked at when they are sent."""


class Beginning(Struct):
    """What the next session would begin with: prices, slices, what is recorded, and what was paid so far.

    `named`: the numbers of the slices that the job names. `known`: the run that goes on, with the cells that it gets.
    """

    targets: tuple[PricedTarget, ...]
    warnings: list[str]
    partition_rows: int
    slices: tuple[Slice, ...] = (Slice(),)
    named: tuple[int, ...] = (0,)
    progress: Progress = Progress()
    bill: Tally = Tally()
    known: Run | None = None
    asked_so_far: AnsweredCalls | None = None  # where rows that ask the same are sent once

    @property
    def books(self) -> tuple[PriceBook, ...]:
        """The price book of each target."""
        return tuple(each.prices for each in self.targets)

    @property
    def asked(self) -> tuple[int, ...]:
        """The numbers of the targets that slices ask."""
        return tuple(dict.fromkeys(self.slices[number].target for number in self.named))

    def expected_tokens(self, cap: int | None) -> int:
        """What the answer to a call with this cap is taken to have: the cap, unless the service did not keep to it."""
        if cap is None:
            return ASSUMED_OUTPUT_TOKENS
        most = cap if self.known is None else self.known.manifest.token_cap
        is_passed = most is not None and self.bill.largest_output_tokens > most
        return max(cap, self.bill.largest_output_tokens) if is_passed else cap

    def of_slice(self, partition: Partition, number: int, count: int) -> int:
        """The index of the partition that has the same rows in a slice. `count`: how many each slice has."""
        return number * count + partition.index


class Survey(Struct):
    """What was found in all calls that have no outcome yet. `first_rows`: of rows below a limit, by themselves.

    `equal_rows`: of those that take the answer of an equal row, which are not among the others. `uncapped`: requests
    whose answer has no cap. `looks`: what was seen in the rows of one slice.
    """

    looks: Looks
    all_rows: Requests = msgspec.field(default_factory=Requests)
    first_rows: Requests = msgspec.field(default_factory=Requests)
    equal_rows: Requests = msgspec.field(default_factory=Requests)
    uncapped: int = 0
    unrenderable: int = 0
    first: CallRequest | None = None
    first_problem: str | None = None

    def add(
        self, made: CallRequest | Outcome, begin: Beginning, walk: BudgetWalk | None, rows: int, limit: int
    ) -> None:
        """One more request that would be sent, unless its like would, or one that takes an earlier answer.

        `rows`: of the input; `limit`: its first ones are counted by themselves.
        """
        known = begin.asked_so_far
        is_new = known is None or made.request_hash is None or known.add(made.request_hash, made.ordinal)
        if isinstance(made, OUTCOMES):
            return
        # Each request's estimate has what is reserved for the answer.
        cap, rates = made.max_output_tokens, begin.books[made.target].rates
        tokens, expected = made.estimated_tokens - (cap or ASSUMED_OUTPUT_TOKENS), begin.expected_tokens(cap)
        if not is_new:
            self.equal_rows.add(made.target, tokens, expected, rates)
            return
        self.uncapped += cap is None
        self.all_rows.add(made.target, tokens, expected, rates)
        if made.ordinal % rows < limit:
            self.first_rows.add(made.target, tokens, expected, rates)
        self.first = self.first or made
        if walk is not None:
            walk.add(made, tokens, expected)

    def add_failed(self, row: int, message: str) -> None:
        """One more call whose prompt can't be made."""
        self.unrenderable += 1
        self.first_problem = self.first_problem or f"row {row}: {message}"


def survey(
    checked: Checked,
    identity: Identity,
    begin: Beginning,
    *,
    walk: BudgetWalk | None,
    limit: int,
    earlier: EarlierAnswers | None = None,
) -> Survey:
    """Look at each call that remains, row by row, and each row in all slices that lack it. `limit`: as of `plan`."""
    of_rows = partitions(identity.rows, begin.partition_rows)
    looked_at, remain = _looked_at(checked, begin, of_rows, identity.rows)
    found = Survey(Looks(checked, checked.row_maker(), remain, PLAN_BYTES))
    asked = row_makers(checked, begin.targets, begin.slices)
    blind = row_makers(checked, begin.targets, begin.slices, opens_images=False) if asked.reads_files else asked
    taking, recorded, rows = AsTaken(earlier, begin.progress.asks), begin.progress.recorded, identity.rows
    committed = set(begin.progress.committed)

    open_in = {
        part: [each for each in begin.named if begin.of_slice(part, each, len(of_rows)) not in committed]
        for part in of_rows
    }
    missing = [part for part in of_rows if open_in[part]]
    for part, table in zip(missing, checked.source.tables(identity, missing), strict=True):
        again = _asked_again(begin, [begin.of_slice(part, each, len(of_rows)) for each in open_in[part]])
        for row, values in enumerate(row_values(table, asked.columns), part.first_row):
            makers = asked if found.all_rows.requests < IMAGES_LOOKED_AT else blind
            last, made = None, None
            for number in open_in[part]:
                ordinal = number * rows + row
                if ordinal in recorded:
                    continue
                maker = makers.of_slices[number] if ordinal not in again else makers.makers[again[ordinal]]
                if made is not None and maker is last:  # a further sample asks just the same
                    made = msgspec.structs.replace(made, ordinal=ordinal)
                else:
                    last, made = maker, maker.make(ordinal, values)
                if number == looked_at:
                    found.looks.note_made(row, values, made)
                    if begin.targets[maker.target].target.conversation is not None:
                        found.looks.note_end(row, maker.render(values))
                if isinstance(made, Failed):
                    found.add_failed(row, made.failure.message)
                    continue
                for request in taking.known(made, is_again=ordinal in again):
                    found.add(request, begin, walk, rows, limit)
    for request in taking.rest():
        found.add(request, begin, walk, rows, limit)
    return found


def _asked_again(begin: Beginning, indexes: Sequence[int]) -> dict[int, int]:
    """The target of each call in these partitions that a `--retry` opened."""
    if begin.known is None:
        return {}
    found: dict[int, int] = {}
    for index in indexes:
        found |= begin.known.open_targets(index)
    return found


def _looked_at(checked: Checked, begin: Beginning, of_rows: Sequence[Partition], rows: int) -> tuple[int, int]:
    """The slice whose rows are looked at, and how many of its rows have no outcome.

    It is the first that has some and whose prompt is that of the first cell: samples of a row are meant to be equal.
    """
    committed, prompt = set(begin.progress.committed), prompt_key(checked.target)
    for number in begin.named:
        target = begin.targets[begin.slices[number].target].target
        missing = [each for each in of_rows if begin.of_slice(each, number, len(of_rows)) not in committed]
        if not missing or (len(begin.named) > 1 and prompt_key(target) != prompt):
            continue
        done = sum(ordinal // rows == number for ordinal in begin.progress.recorded)
        return number, sum(each.row_count for each in missing) - done
    return -1, 0


def unseen_images(checked: Checked, found: Survey) -> Iterator[str]:
    """What is said where not all images were opened."""
    may_have = any(each.target.may_have_images for each in checked.cells)
    if may_have and found.all_rows.requests > IMAGES_LOOKED_AT:
        yield f"images were opened for {IMAGES_LOOKED_AT:,} rows; those of the others are looked at when they are sent"
