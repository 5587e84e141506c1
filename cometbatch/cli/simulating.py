"""The command that serves the simulator."""

from decimal import Decimal, InvalidOperation
from typing import Any

import click

import cometbatch
from cometbatch.cli.options import examples
from cometbatch.cli.printing import say


@click.command(
    short_help="Serve a simulated CometAPI on 127.0.0.1.",
    epilog=examples("cometbatch simulate --port 8000 --rps 50 --fault 429:0.05", "cometbatch simulate --faults"),
)
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one."
)
@click.option("--seed", default=0, show_default=True, help="The same seed and request get the same reply.")
@click.option(
    "--latency", default="0.5-1.5", show_default=True, metavar="S or MIN-MAX", help="Seconds that an answer takes."
)
@click.option("--rps", type=float, help="Requests per second; those above get 429.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME:SHARE",
    help="A fault for a share of requests, such as 429:0.05; repeatable.",
)
@click.option("--faults", "list_faults", is_flag=True, help="List the names of all faults and exit.")
@click.option("--retry-after", is_flag=True, help="Each 429 says how long to wait.")
@click.option("--credit", metavar="USD", help="The account's balance; requests get 403 when it is spent.")
@click.option("--catalog", default="full", show_default=True, help="Which form of /api/models to serve.")
@click.option("--model", metavar="ID", help="Serve one more model, of this id, as comet-sim-1 is served.")
@click.option(
    "--accuracy",
    multiple=True,
    metavar="MODEL:SHARE",
    help="How often a model is right, such as comet-sim-1:0.8; repeatable.",
)
@click.option(
    "--spread",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="Share of the questions that a model decides once for all samples.",
)
@click.option("--no-quirks", is_flag=True, help="Serve replies without extra or missing fields.")
@click.option("--until-stdin-closes", is_flag=True, help="Exit when standard input is closed.")
def simulate(list_faults: bool, port: int, until_stdin_closes: bool, **options: Any) -> None:
    """Serve a simulated CometAPI on 127.0.0.1, to try a job before paying for it.

    Set target.base_url in the job to the address that it prints, and the environment variable COMETAPI_KEY to any text
    such as sk-0123456789. For a job that needs no server of its own, target.base_url: simulator is enough.
    """
    if list_faults:
        for name, meaning in cometbatch.FAULTS.items():
            click.echo(f"{name:22} {meaning}")
        return
    try:
        behaviour = _behaviour(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    cometbatch.simulate(
        behaviour,
        port=port,
        announce=_announce,
        until_stdin_closes=until_stdin_closes,
    )


def _announce(base_url: str) -> None:
    """Say where the simulator listens, and how to use it: its address goes to programs, the hint to people."""
    click.echo(f"listening on {base_url}")
    values = f"--set target.base_url={base_url} --set target.model=comet-sim-1"
    say(f"Try it in another terminal: COMETAPI_KEY=sk-0123456789 cometbatch run JOB_FILE {values}")


def _behaviour(
    *,
    latency: str,
    faults: tuple[str, ...],
    accuracy: tuple[str, ...],
    credit: str | None,
    no_quirks: bool,
    **options: Any,
) -> "cometbatch.Behaviour":
    """Raises `ValueError` with what is wrong with an option."""
    try:
        credit_usd = None if credit is None else Decimal(credit)
    except InvalidOperation as error:
        raise ValueError(f"credit {credit!r}: write an amount in US dollars, such as 0.50") from error
    return cometbatch.Behaviour(
        latency_s=cometbatch.parse_latency(latency),
        faults=tuple(cometbatch.parse_fault(fault) for fault in faults),
        accuracy=tuple(cometbatch.parse_accuracy(each) for each in accuracy),
        credit_usd=credit_usd,
        quirks=not no_quirks,
        **options,
    )
