"""Learning-rate schedules at hand-made points."""

import pytest

from minidet.training.schedules import SCHEDULES, find_schedule


def test_the_cosine_falls_from_one_to_zero():
    cosine = SCHEDULES["cosine"]
    assert [cosine(step, 60) for step in (0, 20, 30, 40, 60)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_the_step_schedule_divides_by_ten_at_two_thirds_and_at_eight_ninths():
    step = SCHEDULES["step"]
    assert [step(at, 90) for at in (0, 59, 60, 79, 80, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_constant_schedule_is_constant():
    assert {SCHEDULES["constant"](at, 10) for at in range(10)} == {1.0}


def test_the_warmup_rises_to_one_and_then_the_schedule_begins():
    schedule = find_schedule("cosine", warmup=4)
    assert [schedule(at, 24) for at in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule(14, 24) == pytest.approx(0.5)  # half-way through the 20 steps after the warm-up
    assert find_schedule("constant", warmup=0)(0, 10) == 1.0


def test_a_run_that_ends_within_its_warmup_is_no_error():
    assert find_schedule("cosine", warmup=50)(9, 10) == pytest.approx(0.2)


def test_four_cosines_each_begin_with_a_warmup_and_end_at_zero():
    schedule = find_schedule("four_cosines", warmup=2)
    one = [0.5, 1.0, 1.0, 0.75, 0.25]  # 5 steps: two of warm-up, then the cosine of 0, 1/3 and 2/3
    assert [schedule(at, 20) for at in range(20)] == pytest.approx(one * 4)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="constant, step, cosine, four_cosines, got 'linear'"):
        find_schedule("linear", 0)
