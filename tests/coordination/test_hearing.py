"""What one owner hears of the service all others know: answers, failures, pauses, and reasons to stop."""

import pytest

from cometbatch.control.coordination.messages import (
    Pushback,
    QueueReport,
    QueueTold,
    Report,
    Resume,
    StopOrder,
    Stopping,
    StopWords,
    decode_request,
    encode,
)
from cometbatch.errors import Quoting
from tests.coordination.scene import Scene, settings

REFUSED = StopOrder(StopWords("refused", "the key is not accepted", fix="account"))
OTHER = StopOrder(StopWords("refused", "something else"))


def two() -> Scene:
    """Two owners, two models."""
    scene = Scene(settings(queues=2))
    scene.join(1)
    scene.join(2)
    return scene


def hear(scene: Scene, owner: int, *queues: QueueReport) -> None:
    """An owner says what it has seen."""
    scene.renew(owner, Report(queues))


def test_counts_are_sums_over_all_others() -> None:
    """Also over those that are gone; but what these held is nobody's any more."""
    scene = two()
    hear(scene, 1, QueueReport(1, answers=5, not_json=3, cut=1, held={"refusal": 4}))
    hear(scene, 1, QueueReport(1, answers=6, not_json=4, cut=1, held={"refusal": 5, "account": 1}))
    scene.join(3)
    hear(scene, 3, QueueReport(1, answers=10, not_json=10, held={"refusal": 1}))
    hear(scene, 2)
    told = QueueTold(1, answers=16, not_json=14, cut=1, held={"refusal": 6, "account": 1})
    assert scene.leases[2].queues == (told,)
    scene.leave(1, Report((QueueReport(1, answers=7, not_json=4, cut=1, is_json=True),)))
    hear(scene, 2)
    assert scene.leases[2].queues == (QueueTold(1, answers=17, not_json=14, cut=1, is_json=True, held={"refusal": 1}),)


def test_nothing_is_told_of_a_model_that_nobody_has_heard() -> None:
    """So that a lease is short."""
    scene = two()
    hear(scene, 1, QueueReport(0, answers=5))
    hear(scene, 1, QueueReport(0, answers=5))
    assert scene.leases[1].queues == ()


@pytest.mark.parametrize(
    ("before", "word", "is_news"),
    [
        (QueueReport(0), QueueReport(0, answers=1, is_json=True), True),  # first answers are over
        (QueueReport(0, is_json=True), QueueReport(0, answers=1, is_json=True), False),
        (QueueReport(0, held={"unreached": 2}), QueueReport(0, answers=1), True),  # failures are their calls' own
        (QueueReport(0), QueueReport(0, answers=1), False),
    ],
)
def test_an_answer_that_others_wait_for_is_news(before: QueueReport, word: QueueReport, is_news: bool) -> None:
    """Others need not be told at once of what does not change what they do."""
    scene = two()
    hear(scene, 2, before)
    seen = scene.coordinator.news
    hear(scene, 1, word)
    assert (scene.coordinator.news_beyond(seen, 2, scene.now) is not None) is is_news
    seen = scene.coordinator.news
    hear(scene, 1, word)
    assert scene.coordinator.news_beyond(seen, 2, scene.now) is None


def test_a_pause_reaches_all_at_once_and_lasts_as_long_as_the_longest_wait() -> None:
    """Its number grows, so that nobody takes an older one for it."""
    scene = two()
    seen = scene.coordinator.news
    assert scene.say(Pushback(1, 1, 20.0))
    news = scene.coordinator.news_beyond(seen, 2, scene.now)
    assert news is not None
    assert news.queues == (QueueTold(1, pause_s=20.0, pause=1),)
    scene.wait(5)
    (told,) = scene.watch(2).queues
    assert told.pause == 1
    assert told.pause_s == pytest.approx(15.0)
    assert scene.say(Pushback(2, 1, 3.0))  # another's wait is no shorter for it
    (told,) = scene.watch(1).queues
    assert told.pause == 2
    assert told.pause_s == pytest.approx(15.0)
    scene.wait(16)
    assert scene.watch(1).queues == (QueueTold(1, pause_s=0.0, pause=2),)


def test_a_pause_of_everybody_ends_when_its_prober_is_answered() -> None:
    """Its last word counts, and it waits for nobody. When it is no more the pause is over: else nobody would try."""
    scene = two()
    scene.say(Pushback(1, 0, 600.0, is_everyones=True))
    seen = scene.coordinator.news
    assert scene.say(Resume(2, 0))  # it does not probe
    assert scene.coordinator.news == seen
    assert scene.say(Resume(1, 0))
    assert scene.say(Resume(1, 0))
    assert scene.coordinator.news == seen + 1
    assert scene.watch(2).queues == (QueueTold(0, pause=1),)
    scene.say(Pushback(1, 0, 600.0, is_everyones=True))
    scene.leave(2)
    assert scene.watch(1).queues == (QueueTold(0, pause=2),)
    scene.join(3)
    assert scene.watch(3).queues == (QueueTold(0, pause_s=600.0, pause=2),)
    scene.say(Pushback(1, 0, 60.0, is_everyones=True))
    scene.say(Pushback(3, 0, 30.0, is_everyones=True))
    assert scene.watch(3).queues == (QueueTold(0, pause_s=60.0, pause=4),)
    assert scene.watch(1).queues == (QueueTold(0, pause=4),)
    scene.leave(1)
    assert scene.watch(3).queues == (QueueTold(0, pause=4),)


def test_a_stop_is_ordered_once_and_the_first_reason_stands() -> None:
    """Whoever gives it: an owner, or the driver."""
    scene = two()
    seen = scene.coordinator.news
    assert scene.say(Stopping(1, REFUSED))
    assert scene.coordinator.news == seen + 1
    scene.say(Stopping(2, OTHER))
    assert scene.drive(stops=(OTHER,)).stops == (REFUSED,)
    assert scene.coordinator.news == seen + 1
    assert scene.watch(2).stops == scene.renew(2).stops == (REFUSED,)
    assert scene.claim(2).is_over


def test_a_stop_may_become_one_at_once() -> None:
    """With the first reason, as by a second signal."""
    scene = two()
    scene.drive(stops=(REFUSED,))
    at_once = StopOrder(REFUSED.words, is_now=True)
    assert scene.drive(stops=(REFUSED, StopOrder(OTHER.words, is_now=True))).stops == (at_once,)
    assert scene.drive(stops=(REFUSED,)).stops == (at_once,)


def test_a_model_stops_without_the_others() -> None:
    """Work goes on, for the rest."""
    scene = two()
    order = StopOrder(StopWords("refused", "no such model"), queue=1)
    scene.say(Stopping(1, order))
    assert scene.renew(2).stops == (order,)
    assert len(scene.claim(2).ranges) == 1
    scene.say(Stopping(1, REFUSED))
    assert scene.renew(2).stops == (order, REFUSED)


def test_why_calls_are_left_is_told_once_all_have_ended() -> None:
    """It stops nobody; and where everybody was ordered to stop, that is the reason."""
    left = StopOrder(StopWords("refused", "the service asks to wait for an hour"))
    of_one = StopOrder(left.words, queue=1)
    scene = Scene(settings(queues=2), range(1))
    scene.join(1)
    scene.join(2)
    scene.take(1)
    scene.leave(1, closed=(0,), left=(left, of_one))
    assert scene.drive().stops == ()
    scene.leave(2, left=(OTHER,))
    assert scene.drive().stops == (left, of_one)
    scene.drive(stops=(REFUSED,))
    assert scene.drive().stops == (REFUSED,)


def test_words_that_quote_something_travel_as_words() -> None:
    """What else is no value of a message can't travel at all."""
    quoting = Quoting("the service says: no", "the service refuses")
    stopping = Stopping(1, StopOrder(StopWords("refused", quoting)))
    assert decode_request(encode(stopping)) == Stopping(1, StopOrder(StopWords("refused", str(quoting))))
    with pytest.raises(TypeError, match="object can't travel"):
        encode(Stopping(1, StopOrder(StopWords("refused", object()))))  # type: ignore[arg-type] # that is the point


def test_what_was_heard_of_each_model_stays_when_an_owner_is_gone() -> None:
    """With an adaptive rate as without."""
    scene = Scene(settings(adaptive=True))
    scene.join(1)
    scene.join(2)
    hear(scene, 1, QueueReport(0, answers=4))
    scene.leave(1, Report((QueueReport(0, answers=5),)))
    assert scene.watch(2).queues == (QueueTold(0, answers=5),)
