"""Who is told how a run goes: everybody who listens, and never at the run's cost."""

from collections.abc import Sequence

import pytest

from cometbatch.commands.observers import Listener, Moment, Observers
from cometbatch.records import Outcome, Partition, Tally
from cometbatch.results import tallies
from cometbatch.runner.ports import Pace
from tests.scripted_run import unsendable

MOMENT = Moment(1.0, Tally(), 3, "", Pace(8, None))
CALLS = {
    "recorded": ([unsendable(0)], 4),
    "asked_to_slow_down": (2.0,),
    "retried": (),
    "looked": (MOMENT,),
    "committed": (Partition(0, 0, 10),),
    "warned": ("words",),
    "noted": ("words",),
    "ended": (None, ValueError("x")),
}


class Heard(Listener):
    """Writes down what it is told, and raises at one of the calls. It stands for a progress line, too."""

    def warn(self, words: str) -> None:
        """As of a progress line."""

    def __init__(self, failing: str = "") -> None:
        self.heard: list[tuple[str, tuple[object, ...]]] = []
        self.failing = failing

    def __getattribute__(self, name: str) -> object:
        if name not in CALLS | {"warn": ()}:
            return super().__getattribute__(name)

        def hear(*told: object) -> None:
            self.heard.append((name, told))
            if name == self.failing:
                raise OSError("the secret sk-0123456789")

        return hear


def tell_all(observers: Observers) -> None:
    """One call of each kind, in the order of the table."""
    for name, told in CALLS.items():
        getattr(observers, name)(*told)


def test_everybody_is_told_everything_in_order() -> None:
    """Each listener hears each call once, with what was told."""
    listeners = [Heard(), Heard()]
    tell_all(Observers(listeners))
    for each in listeners:
        assert each.heard == list(CALLS.items())


@pytest.mark.parametrize("failing", sorted(CALLS))
def test_a_listener_that_raises_is_left_out(failing: str) -> None:
    """The caller never sees its exception; the others hear of it once, without its words, and everything else."""
    broken, sound = Heard(failing), Heard()
    tell_all(Observers([broken, sound]))
    assert [name for name, _ in broken.heard] == list(CALLS)[: list(CALLS).index(failing) + 1]
    warnings = [told for told in sound.heard if told not in CALLS.items()]
    assert warnings == [("warned", ("Heard failed and is told nothing more (OSError)",))]
    assert [told for told in sound.heard if told in CALLS.items()] == list(CALLS.items())


def test_nobody_stands_between_the_loop_and_the_progress_line_where_nobody_listens() -> None:
    """A run that has no listener does no work for one."""
    shown = Heard()
    assert Observers().beside(shown) is shown
    observers = Observers([Heard()])
    assert observers.beside(shown) is observers
    observers.recorded([unsendable(0)], 4)
    assert shown.heard == [("recorded", CALLS["recorded"])]


def test_a_complaint_is_told_by_the_progress_line() -> None:
    """Where there is one, it shows the warning and hands it on; else those who listen hear it."""
    listener, shown = Heard(), Heard()
    observers = Observers([listener])
    listener.complain("words")
    assert listener.heard == [("warned", ("words",))]
    observers.beside(shown)
    listener.complain("words")
    assert shown.heard == [("warn", ("words",))]


def test_the_tally_is_that_of_all_outcomes_at_any_moment() -> None:
    """However many outcomes a turn has, and whenever it is looked at."""
    observers, outcomes = Observers([Heard()]), [unsendable(row) for row in range(400)]
    begun = 0
    for size in (1, 127, 0, 128, 3, 141):
        observers.recorded(outcomes[begun : begun + size], 4)
        begun += size
        assert observers.tally == tallies.tally(outcomes[:begun])


def test_what_a_listener_does_not_ask_for_costs_it_nothing() -> None:
    """Each call has a default that does nothing."""
    outcomes: Sequence[Outcome] = [unsendable(0)]
    listener = Listener()
    listener.recorded(outcomes, 1)
    tell_all(Observers([listener]))
    assert not listener.takes_words
