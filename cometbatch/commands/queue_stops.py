"""Why a run of several models ended, where that was the affair of some of them: which cells, and what to do."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cometbatch.commands.cell_summaries import told_labels
from cometbatch.errors import Quoting, logged
from cometbatch.results.cell_summary import telling
from cometbatch.results.slices import Label, words_of
from cometbatch.results.summary_words import count
from cometbatch.run_state.manifest import Manifest
from cometbatch.runner.ports import Ended, Stop

CELLS_SHOWN = 10  # in a message; of the others, the number is said
RESUME = (
    "Then run the same command again: it sends what is missing. Or take these values out of the matrix: their answers "
    "stay, and the result is that of the others"
)


def stop_of(ended: Ended, manifest: Manifest) -> Stop | None:
    """Why the run ended before its last call; None where it did not. With a matrix it names the cells concerned."""
    own = dict(ended.queues)
    is_of_queues = ended.stop is None or any(each is ended.stop for each in own.values())
    if not manifest.has_matrix or not own or not is_of_queues:
        return ended.stop
    queues = manifest.queues()
    first = next(iter(own.values()))
    stopped = sum(len(_cells(manifest, queues[number])) for number in own)
    total = sum(len(_cells(manifest, each)) for each in queues)
    names = telling([manifest.slices[number].labels for number in manifest.active])
    head = f"{stopped} of {count(total, 'cell')} stopped before the last call"
    head += "; the others went on without them." if stopped < total else "."
    lines = [head, *(line for number, each in own.items() for line in _told(manifest, queues[number], each, names))]
    words, quiet = ("\n".join(map(tell, lines)) for tell in (str, logged))
    fix = first.fix if len({each.fix for each in own.values()}) == 1 else "job"
    return msgspec.structs.replace(first, message=Quoting(words, quiet), hint=RESUME, fix=fix, next_usd=None)


def _told(manifest: Manifest, queue: Sequence[int], stop: Stop, names: Sequence[str]) -> Iterator[str]:
    """Of a model that stopped: its cells, by the labels that tell cells from each other, and why."""
    found = (told_labels(manifest, labels) for labels in _cells(manifest, queue).values())
    cells = [{name: labels[name] for name in names} for labels in found]
    shown = [words_of(labels) for labels in cells[:CELLS_SHOWN]]
    in_logs = [words_of({name: logged(label) for name, label in labels.items()}) for labels in cells[:CELLS_SHOWN]]
    more = [f"and {len(cells) - CELLS_SHOWN:,} more"] if len(cells) > CELLS_SHOWN else []
    end = "" if stop.message.endswith((".", "!", "?")) else "."
    why = f"{end} {stop.hint}" if stop.hint else end
    yield Quoting(
        f"  {'; '.join([*shown, *more])}: {stop.message}{why}",
        f"  {'; '.join([*in_logs, *more])}: {logged(stop.message)}{why}",
    )


def _cells(manifest: Manifest, queue: Sequence[int]) -> dict[int, Mapping[str, Label]]:
    """The labels of a queue's cells, by target."""
    return {manifest.slices[each].target: manifest.slices[each].labels for each in queue}
