"""Learning-rate schedules: functions of (step, total steps) that give a factor for the learning rate.

They keep no state, so a resumed run needs nothing but the number of its step to go on with the right rate.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]

# Where the "step" schedule divides by ten, as fractions of the training. ResNet (He et al. 2016, section 4.1) divides
# when the error levels off, detectors (Mask R-CNN, section 3.1) at about 2/3 and 8/9. Later keeps the high rate longer.
MILESTONES = (2 / 3, 8 / 9)
DECAY = 0.1


def constant(step: int, total: int) -> float:
    """1 throughout."""
    return 1.0


def step(step: int, total: int) -> float:
    """1, then a tenth from each of MILESTONES on."""
    return DECAY ** sum(step >= milestone * total for milestone in MILESTONES)


def cosine(step: int, total: int) -> float:
    """(1 + cos(pi step / total)) / 2: from 1 to 0 along half a wave (Loshchilov and Hutter 2017, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "step": step, "cosine": cosine}
FOUR_COSINES = "four_cosines"
SCHEDULE_NAMES = (*SCHEDULES, FOUR_COSINES)


def with_warmup(schedule: Schedule, warmup: int) -> Schedule:
    """Rises in equal steps from 1 / warmup to 1 during the first `warmup` steps, then follows the schedule.

    A new network's gradients are large and random; small first steps keep them from doing damage (Goyal et al. 2017,
    section 2.2). The schedule's own steps count from the end of the warm-up.
    """

    def factor(step: int, total: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return schedule(step - warmup, total - warmup)

    return factor


def find_schedule(name: str, warmup: int) -> Schedule:
    """The schedule of that name, after a warm-up of so many steps: for trainings in four steps, which each begin anew,
    FOUR_COSINES is warm-up and cosine four times. Raises ValueError for an unknown name."""
    if name == FOUR_COSINES:
        once = with_warmup(cosine, warmup)
        return lambda step, total: once(step % max(total // 4, 1), total // 4)
    if name not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULE_NAMES)}, got {name!r}")
    return with_warmup(SCHEDULES[name], warmup)
