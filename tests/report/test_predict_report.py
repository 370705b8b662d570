"""What `python -m trainpace predict` prints."""

import pytest

from trainpace.__main__ import main
from trainpace.cases import PUBLISHED
from trainpace.cost.predict import devices, forecast
from trainpace.report.predict import render


@pytest.mark.parametrize("device", devices())
def test_every_device_is_printed(device):
    """Fourteen rows, the rows that are off by more than 10 %, the error."""
    text = render(forecast(device))

    assert [case.id for case in PUBLISHED if case.id not in text] == []
    assert "doubt the row" in text
    assert text.splitlines()[-1].startswith("mean error of a published row that was left out of the fit: ")


def test_a_slower_network_holds_more(capsys):
    """`--network` replaces the maker's own."""
    status = main(["predict", "h100-sxm5-80gb", "--network", "1"])

    assert status == 0
    assert "network" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("llama2_70b-8k"))


def test_an_unknown_device_names_those_that_are_known(capsys):
    """The message says what is possible."""
    status = main(["predict", "abacus"])

    assert status == 1
    assert capsys.readouterr().err == f"device must be one of {', '.join(devices())}, got 'abacus'\n"
