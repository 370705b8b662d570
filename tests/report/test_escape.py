"""Nothing quoted in Markdown means anything but itself."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostile import GITHUB_LINKS, HOSTILE, drawn, seen, text_of
from trainpace.report.escape import fenced, plain, sentence


@pytest.mark.parametrize("value", HOSTILE)
def test_plain_in_a_list(value):
    """Quoted text in a list is one item with that text and without any markup."""
    markup = drawn(f"- {plain(value)}")

    assert re.findall(r"<[^>]*>", markup) == ["<ul>", "<li>", "</li>", "</ul>"]
    assert text_of(markup).strip() == seen(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_plain_in_a_table(value):
    """Quoted text in a table is one cell with that text."""
    markup = drawn(f"| a | b |\n|---|---|\n| {plain(value)} | end |")

    assert re.findall(r"<[^>]*>", markup).count("<td>") == 2
    assert "<td>end</td>" in markup
    assert text_of(markup.split("<td>")[1].split("</td>")[0]) == seen(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_github_makes_no_link(value):
    """No mention, reference, bare address, emoji or formula is left for GitHub to find."""
    assert not GITHUB_LINKS.findall(plain(value).replace("&#", "&"))


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text("`*_[]()<>|#@&\\-+=:~$!1.) \n/aw"))
@example("1)")
@example("+ a")
def test_plain_is_what_it_was(value):
    """Whatever is quoted, a reader sees it as it was, and no markup comes of it."""
    markup = drawn(f"- x {plain(value)}")
    alone = drawn(f"{plain(value)}")

    assert re.findall(r"<[^>]*>", markup) == ["<ul>", "<li>", "</li>", "</ul>"]
    assert text_of(markup).split() == ["x", *seen(value).split()]
    assert set(re.findall(r"<[^>]*>", alone)) <= {"<p>", "</p>"}


@given(st.text("`<|@# ab\n*\\"))
@example("`<``<`")
def test_sentences_hold_code_and_nothing_else(value):
    """A sentence may hold code between its own backticks; no other markup comes of what it quotes."""
    markup = drawn(f"- x {sentence(value)}")

    assert set(re.findall(r"<[^>]*>", markup)) <= {"<ul>", "<li>", "</li>", "</ul>", "<code>", "</code>"}
    assert "".join(text_of(markup).split()) == "x" + "".join(value.split()).replace(
        "`" * (value.count("`") % 2 == 0), ""
    )


def test_sentence_keeps_its_blanks():
    """Words and code stay apart."""
    assert sentence("run `pytest perf`, or `ls`") == "run `pytest perf`, or `ls`"


@given(st.text("`~<|@# ab\n*\\"))
@example("```\n</details>\n```")
def test_fence_holds(value):
    """A block of code ends where it ends, whatever it holds."""
    markup = drawn(f"<details>\n\n{fenced(value)}\n</details>\n\nafter")

    assert re.findall(r"<[^>]*>", markup) == [
        "<details>",
        "<pre>",
        '<code class="language-text">',
        "</code>",
        "</pre>",
        "</details>",
        "<p>",
        "</p>",
    ]
    assert text_of(markup).split() == [*value.split(), "after"]
