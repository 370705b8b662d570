"""What an environment loads that was installed, editable, when the package was called `perf`: one line for its user."""

import pytest

raise pytest.UsageError(
    "this environment was set up when trainpace's package was called perf: run `pip install -e .` again"
)
