"""Two clocks on the same steps."""

import statistics


def agree(clock, ours):
    """Whether our seconds hold all that another clock, inside of ours, saw of each step; and within 2 % no more.

    What a loaded machine does between the marks of the two belongs to neither, so the closest step decides.
    """
    more = [step - seen for seen, step in zip(clock, ours, strict=True)]
    return min(more) >= 0 and min(more) <= 0.02 * statistics.median(clock)
