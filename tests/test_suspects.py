"""What is remembered of inputs under which batches failed."""

from __future__ import annotations

from diptych.suspects import Suspects


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_failed_alone_runs_alone_until_it_is_answered() -> None:
    suspects = Suspects()
    assert not suspects
    suspects.failed(b"a")
    assert b"a" in suspects
    assert not suspects.is_refused(b"a")
    suspects.answered(b"a")
    assert not suspects


def test_all_under_which_the_engine_died_run_alone_and_none_is_refused() -> None:
    suspects = Suspects()
    for _ in range(5):
        suspects.engine_died([b"a", b"b"])
    assert b"a" in suspects
    assert b"b" in suspects
    assert not suspects.is_refused(b"a")


def test_one_death_alone_is_an_accident_and_two_are_not() -> None:
    suspects = Suspects()
    suspects.engine_died([b"a", b"b"])
    suspects.engine_died([b"a"])
    assert not suspects.is_refused(b"a")
    suspects.engine_died([b"a"])
    assert suspects.is_refused(b"a")
    assert not suspects.is_refused(b"b")


def test_an_answer_between_two_deaths_clears_of_the_first() -> None:
    suspects = Suspects()
    suspects.engine_died([b"a"])
    suspects.answered(b"a")
    suspects.engine_died([b"a"])
    assert not suspects.is_refused(b"a")


def test_what_is_refused_may_try_again_after_a_while_and_no_death_is_forgiven() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    suspects.engine_died([b"a"])
    suspects.engine_died([b"a"])
    clock.now = 599.0
    assert suspects.is_refused(b"a")
    clock.now = 601.0
    assert not suspects.is_refused(b"a")
    suspects.engine_died([b"a"])
    assert suspects.is_refused(b"a")


def test_the_one_longest_without_a_new_reason_is_forgotten_first() -> None:
    suspects = Suspects()
    digests = [str(number).encode() for number in range(1024)]
    suspects.engine_died(digests)
    suspects.failed(digests[0])
    suspects.failed(b"new")
    assert digests[0] in suspects
    assert digests[1] not in suspects
