"""The shapes of the models in the published table.

Source of each: the config.json that the model's authors published (also tabulated in docs/cases.md).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from trainpace.cases.workload import Shape


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model: its name in ids, its name for people, its shape at full and at mini scale."""

    name: str
    title: str
    shape: Shape
    mini: Shape = None  # type: ignore[assignment]
    """The same model with everything small: for a CPU, where only the code path is the same. Not given: `mini_of`."""

    def __post_init__(self) -> None:
        check_name("a model's name", self.name)
        if self.mini is None:
            object.__setattr__(self, "mini", mini_of(self.shape))


MINI_HEAD = 8
"""Width of a head that is hidden / heads, at mini scale."""
MINI_HEADS = 8
"""Smallest number of heads at mini scale; a multiple of 4, so that four ranks can share a sequence."""
MINI_LAYERS = 2
MINI_VOCABULARY = 512
MINI_EXPERTS = 4
MINI_WINDOW_CUT = 64
"""A window of attention is cut as sequences are."""


def mini_of(shape: Shape) -> Shape:
    """`shape` with everything small: two layers, and the same ratios of heads, head size, hidden and intermediate."""
    group = shape.heads // shape.kv_heads
    heads = math.lcm(group, 4)
    heads *= math.ceil(MINI_HEADS / heads)
    hidden = MINI_HEAD * heads
    head = None
    if shape.head is not None:
        head = max(2, 2 * round(MINI_HEAD * shape.head * shape.heads / shape.hidden / 2))
    return shape.model_copy(
        update={
            "hidden": hidden,
            "layers": min(shape.layers, MINI_LAYERS),
            "intermediate": max(4, 4 * round(shape.intermediate * hidden / shape.hidden / 4)),
            "heads": heads,
            "kv_heads": heads // group,
            "vocabulary": min(shape.vocabulary, MINI_VOCABULARY),
            "head": head,
            "config": _mini_config(shape.config, shape.layers, hidden / shape.hidden),
        }
    )


def _mini_config(config: dict[str, Any], layers: int, share: float) -> dict[str, Any]:
    """Further fields of a config at mini scale: few experts, narrow ones, short windows, both of two kinds of layers.

    `share` is the small hidden over the full one.
    """
    small = dict(config)
    for name in ("num_local_experts", "num_experts"):
        if name in small:
            small[name] = min(small[name], max(MINI_EXPERTS, small.get("num_experts_per_tok", 1)))
    if "moe_intermediate_size" in small:
        small["moe_intermediate_size"] = max(4, 4 * round(small["moe_intermediate_size"] * share / 4))
    if small.get("sliding_window"):
        small["sliding_window"] = max(4, small["sliding_window"] // MINI_WINDOW_CUT)
    for name, value in config.items():
        if isinstance(value, list) and len(value) == layers > MINI_LAYERS:
            kinds = list(dict.fromkeys(map(str, value)))
            picked = [value[0], next(each for each in value if str(each) == kinds[-1])]
            small[name] = picked[:MINI_LAYERS]
    return small


LONGEST_NAME = 100
"""Characters of an id: it becomes a part of file names, which end at 255 bytes."""


def check_name(what: str, name: str) -> None:
    """Refuse what could not stand in a file's name, in a line of a report and in `pytest -k`.

    Raises:
        ValueError: naming it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or len(name) > LONGEST_NAME:
        shown = repr(name) if len(name) <= LONGEST_NAME else f"{name[:20]!r}... of {len(name)} characters"
        raise ValueError(
            f"{what} must be letters (a to z), digits, _, . and -, with no . or - first, and at most {LONGEST_NAME} "
            f"characters, got {shown}"
        )


LLAMA2_7B = Model(
    name="llama2_7b",
    title="Llama2-7B",
    shape=Shape(hidden=4096, layers=32, intermediate=11008, heads=32, kv_heads=32, vocabulary=32000),
    mini=Shape(hidden=64, layers=2, intermediate=172, heads=8, kv_heads=8, vocabulary=512),
)

YI_34B_200K = Model(
    name="yi_34b_200k",
    title="Yi-34B-200K",
    shape=Shape(hidden=7168, layers=60, intermediate=20480, heads=56, kv_heads=8, vocabulary=64000),
    mini=Shape(hidden=96, layers=2, intermediate=272, heads=12, kv_heads=2, vocabulary=512),
)

LLAMA2_70B = Model(
    name="llama2_70b",
    title="Llama2-70B",
    shape=Shape(hidden=8192, layers=80, intermediate=28672, heads=64, kv_heads=8, vocabulary=32000),
    mini=Shape(hidden=128, layers=2, intermediate=448, heads=16, kv_heads=2, vocabulary=512),
)
