"""The table of faults in the docs: each row stands on a test that exists."""

import re


def test_every_row_is_linked_to_a_test(checkout):
    """Each row of docs/faults.md names a test in a file that defines it."""
    rows = [line for line in (checkout / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][1:]
    linked = [re.search(r"\[`(test_\w+)`\]\(\.\./(tests/\S+)\) \|$", row) for row in rows]

    assert len(rows) > 25
    assert all(linked)
    for found in linked:
        assert f"def {found[1]}(" in (checkout / found[2]).read_text()
