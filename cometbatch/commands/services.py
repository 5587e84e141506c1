"""The model service as the loop sees it, put together: what reads, judges and prices the calls of each target."""

import functools
from collections.abc import Callable, Sequence

from cometbatch import wire
from cometbatch.commands.answers import checker_of
from cometbatch.commands.asking import acceptance
from cometbatch.commands.checked import Checked
from cometbatch.commands.clock import now
from cometbatch.commands.targets import prices_of, whose_model
from cometbatch.control.classify import classify
from cometbatch.prompt.answers import Checker
from cometbatch.records import Acceptance, CallRequest, Completion, ErrorDetail, HttpResponse
from cometbatch.results import columns
from cometbatch.run_state.manifest import PricedTarget
from cometbatch.run_state.run import Run
from cometbatch.runner.images import Send
from cometbatch.runner.ports import Service
from cometbatch.runner.reply_reader import Parse, Reader
from cometbatch.transport import Transport
from cometbatch.wire import FormatName, Keep
from cometbatch.wire.envelope import request_id_of
from cometbatch.wire.structured import answer_of_call


def service_of(checked: Checked, run: Run, transport: Transport, send: Send) -> Service:
    """The service of a run. `send`: begins an exchange over `transport`."""
    names, targets = run.columns, run.manifest.targets
    keep = Keep(raw="raw" in names, reasoning="reasoning" in names)
    price, max_cost = prices_of(run.manifest.books)

    def is_reached() -> bool:
        """Whether a connection was ever made; taken for granted where that is not ours to know."""
        stats = transport.pool_stats
        return stats is None or stats.opened > 0

    return Service(
        send=send,
        read=Reader(_parsers(checked, targets, keep), transport).read,
        classify=functools.partial(classify, now=now),
        accept=_accept(checked, targets),
        price=price,
        max_cost=max_cost,
        request_id=request_id_of,
        is_reached=is_reached,
        whose_model=whose_model(targets),
        status=functools.partial(columns.status_of, keeps_calls=columns.TOOL_CALLS in names),
    )


def checkers_of(checked: Checked, targets: Sequence[PricedTarget]) -> list[Checker | None]:
    """What checks the answers of each target: formats differ in the schemas that they can be asked for."""
    found = {each.target.format: each.checker for each in checked.cells}
    for each in targets:
        if each.target.format not in found:  # of a cell that the job does not name any more
            found[each.target.format] = checker_of(each.target)
    return [found[each.target.format] for each in targets]


def _parsers(checked: Checked, targets: Sequence[PricedTarget], keep: Keep) -> list[Parse]:
    """What reads the replies of each target, in its format."""
    is_call = checked.target.response.mode == "tool"

    def parser(name: FormatName) -> Parse:
        parse = functools.partial(wire.FORMATS[name].parse_response, keep=keep)
        return functools.partial(_read_call, parse) if is_call else parse

    of_formats = {name: parser(name) for name in dict.fromkeys(each.target.format for each in targets)}
    return [of_formats[each.target.format] for each in targets]


def _accept(checked: Checked, targets: Sequence[PricedTarget]) -> Callable[[CallRequest, Completion, int], Acceptance]:
    """What judges the answers of each target."""
    response = checked.target.response
    judges = [
        acceptance(checker, wire.FORMATS[each.target.format], response)
        for checker, each in zip(checkers_of(checked, targets), targets, strict=True)
    ]
    if len({each.target.format for each in targets}) == 1:
        return judges[0]
    return lambda call, completion, ask: judges[call.target](call, completion, ask)


def _read_call(parse: Parse, reply: HttpResponse, sent_bytes: int) -> Completion | ErrorDetail:
    """A reply whose answer is in a call of a function: its arguments are the text."""
    said = parse(reply, sent_bytes)
    return answer_of_call(said) if isinstance(said, Completion) else said
