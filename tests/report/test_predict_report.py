"""What `python -m trainpace predict` prints."""

import pytest

from trainpace.__main__ import main
from trainpace.cases import PUBLISHED
from trainpace.cases.scaling import full_workload
from trainpace.cost.predict import devices, forecast_of, forecasts
from trainpace.report.predict import render, render_one, render_sweep
from trainpace.store.table_counts import load_counts


@pytest.mark.parametrize("device", devices())
def test_every_device_is_printed(device):
    """Fourteen rows, and from what they were learnt."""
    text = render(forecasts(device))

    assert [case.id for case in PUBLISHED if case.id not in text] == []
    assert "learnt from" in text


def test_a_slower_network_holds_more(capsys):
    """`--network` replaces the maker's own."""
    status = main(["predict", "h100-sxm5-80gb", "--network", "1"])

    assert status == 0
    assert "traffic" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("llama2_70b-8k"))


def test_an_unknown_device_names_those_that_are_known(capsys):
    """The message says what is possible."""
    status = main(["predict", "abacus"])

    assert status == 1
    assert capsys.readouterr().err == f"device must be one of {', '.join(devices())}, got 'abacus'\n"


def one(case, device, **changed):
    """The forecast of a published case."""
    workload = full_workload(case)
    counters = load_counts("xtuner")[workload.key] | changed
    return forecast_of(counters, {"forward": counters["step.flops.matmul"] // 4}, workload, device)


def test_a_case_is_told():
    """TGS with its interval, MFU, memory, floor, what binds, from what it was learnt and how near that is."""
    text = render_one(one(PUBLISHED[0], "a100-sxm4-80gb"))

    first, tgs, mfu, memory, floor, binds, learnt, near = text.splitlines()
    assert first == "llama2_7b-8k-sp1 on 8 x a100-sxm4-80gb"
    assert tgs.startswith("TGS 3")
    assert " .. " in tgs
    assert mfu.startswith("MFU 4")
    assert memory == "peak memory 19.73 GiB of 80: fits"
    assert floor.startswith("floor 5194.4 TGS, from compute")
    assert binds.startswith("binds: products of matrices; products ")
    assert learnt.startswith("learnt from 17 rows of xtuner on a100-sxm4-80gb")
    assert near == "the row most like it: llama2_7b-8k-sp1, 3028.3 TGS"


def test_a_case_that_does_not_fit_says_so():
    """With the share of the memory that it may fill."""
    text = render_one(one(PUBLISHED[0], "a100-sxm4-40gb", **{"deepspeed.memory.peak": 39 << 30}))

    assert "peak memory 39.00 GiB of 40: does not fit: the case needs more than the 90 % of the memory" in text
    assert "an extrapolation: MLP gated (rows: ungated)" in text


def test_a_sweep_shows_what_fits():
    """And counts what does not."""
    fits, not_ = (
        one(PUBLISHED[0], "a100-sxm4-40gb"),
        one(PUBLISHED[1], "a100-sxm4-40gb", **{"deepspeed.memory.peak": 9**12}),
    )

    text = render_sweep([fits, not_])

    assert "2 settings, 1 fit, 1 do not" in text
    assert text.count("full  ") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nobody"], "--model: expected the path of a config.json, or one of llama2_7b"),
        (["--model", "nowhere/config.json"], "nowhere/config.json: expected the config.json of a transformers model"),
        (["--model", "llama2_7b", "--sequence", "8q"], "length must be one of 1k"),
        (["--model", "llama2_7b", "--micro-batch", "0"], "micro_batch must be at least 1, got 0"),
        (["--model", "llama2_7b", "--gpus", "6", "--sp", "4"], "gpus must be a positive multiple of sp"),
        (["--model", "deepseek_v2"], "the native trainer cannot train deepseek_v2"),
        (["--network", "-1"], "network must be a positive bandwidth, got -1e+09"),
        (["--table", "abacus"], "table must be one of"),
    ],
)
def test_bad_input(options, said, capsys):
    """Named, before anything is counted."""
    assert main(["predict", "a100-sxm4-80gb", *options]) == 1
    assert said in capsys.readouterr().err


def test_errors_of_every_table(capsys):
    """By table and device: rows, mean, median, worst, how many in their interval."""
    assert main(["predict", "h100-sxm5-80gb", "--errors"]) == 0
    assert "llm-foundry  h100-sxm5-80gb          70" in capsys.readouterr().out
