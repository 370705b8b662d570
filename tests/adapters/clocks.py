"""Two clocks on the same steps."""

import statistics


def agree(clock, ours):
    """Whether our seconds of a step are another clock's within 2 %.

    What a loaded machine does between the marks of the two is seen by one of them alone, so the closest step decides.
    """
    apart = [abs(step - seen) for seen, step in zip(clock, ours, strict=True)]
    return min(apart) <= 0.02 * statistics.median(clock)
