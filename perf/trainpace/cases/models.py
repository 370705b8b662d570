"""The shapes of the models in the published table.

Source of each: the config.json that the model's authors published (also tabulated in docs/cases.md).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainpace.cases.architectures import EXPERTS_ALIGN, TRAINED, has_experts
from trainpace.cases.config_file import read_config
from trainpace.cases.hub import shape_of
from trainpace.cases.parameters import parameters
from trainpace.cases.workload import Shape
from trainpace.errors import FileError


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model: its name in ids, its name for people, its shape at full and at mini scale."""

    name: str
    title: str
    shape: Shape | None
    """None: it is its trainer's own affair (`Case.of`)."""
    mini: Shape | None = None
    """The same model with everything small: for a CPU, where only the code path is the same. Not given: `mini_of`."""

    def __post_init__(self) -> None:
        check_name("a model's name", self.name)
        if self.mini is None and self.shape is not None:
            object.__setattr__(self, "mini", mini_of(self.shape))

    @property
    def decoder(self) -> Shape:
        """Its shape, for what is computed of one.

        Raises:
            ValueError: where it has none.
        """
        if self.shape is None:
            raise ValueError(f"{self.name}: expected the shape of the model, which is its trainer's own affair")
        return self.shape

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any],
        *,
        name: str | None = None,
        title: str | None = None,
        mini: Shape | None = None,
    ) -> Self:
        """A model of a transformers config as it lies on the hub: the path of its config.json, or what stands in it.

        A relative path begins where pytest was started. Not given, `name` is the last part of the config's
        `_name_or_path`, as an id can hold it, or the architecture and its parameters, `qwen2_7.6b`; `title` likewise.

        Raises:
            FileError: where the file cannot be read or is no such config: the file, the field, what was expected and
                what came. Of a mapping it is a ValueError.
        """
        if isinstance(config, Mapping):
            return cls._of_config(config, name, title, mini)
        found = read_config(config)
        try:
            return cls._of_config(found, name, title, mini)
        except ValueError as error:
            raise FileError(f"{config}: {error}") from None

    @classmethod
    def _of_config(cls, config: Mapping[str, Any], name: str | None, title: str | None, mini: Shape | None) -> Self:
        shape = shape_of(config)
        last = str(config.get("_name_or_path") or "").rstrip("/").rpartition("/")[2].strip(".")
        named = re.sub(r"[^a-z0-9_]+", "_", last.lower()).strip("_")
        size = [short_count(parameters(shape))] if shape.architecture in TRAINED else []
        return cls(
            name=name or named or "_".join([shape.architecture, *size]).lower(),
            title=title or name or last or " ".join([shape.architecture, *size]),
            shape=shape,
            mini=mini,
        )


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
    step = EXPERTS_ALIGN if has_experts(shape) else 4
    return shape.model_copy(
        update={
            "hidden": hidden,
            "layers": min(shape.layers, MINI_LAYERS),
            "intermediate": _rounded(shape.intermediate * hidden / shape.hidden, step),
            "heads": heads,
            "kv_heads": heads // group,
            "vocabulary": min(shape.vocabulary, MINI_VOCABULARY),
            "head": head,
            "config": _mini_config(shape, hidden / shape.hidden, (head or MINI_HEAD) / shape.head_size),
        }
    )


def _rounded(width: float, step: int) -> int:
    """`width` as a multiple of `step`, at least one."""
    return max(step, step * round(width / step))


def _mini_config(shape: Shape, share: float, head_share: float) -> dict[str, Any]:
    """Further fields of a config at mini scale: few experts, narrow ones, short windows, both of two kinds of layers.

    `share` is the small hidden over the full one, `head_share` the same of a head's width.
    """
    small = dict(shape.config)
    for name in ("num_local_experts", "num_experts"):
        if name in small:
            small[name] = min(small[name], max(MINI_EXPERTS, small.get("num_experts_per_tok", 1)))
    if "moe_intermediate_size" in small:
        small["moe_intermediate_size"] = _rounded(small["moe_intermediate_size"] * share, EXPERTS_ALIGN)
    if small.get("sliding_window"):
        small["sliding_window"] = max(4, small["sliding_window"] // MINI_WINDOW_CUT)
    small.pop("n_positions", None)  # as many as the sequence has
    for name in ("rope_parameters", "rope_scaling"):
        if name in small:
            small[name] = _mini_rotation(small[name], head_share)
    for name, value in shape.config.items():
        if isinstance(value, list) and len(value) == shape.layers > MINI_LAYERS:
            kinds = list(dict.fromkeys(map(str, value)))
            picked = [value[0], next(each for each in value if str(each) == kinds[-1])]
            small[name] = picked[:MINI_LAYERS]
    return small


def _mini_rotation(value: Any, head_share: float) -> Any:
    """What is listed for each pair of a head's numbers, for as many pairs as a small head has."""
    if isinstance(value, dict):
        return {name: _mini_rotation(each, head_share) for name, each in value.items()}
    if isinstance(value, list):
        return value[: max(1, round(len(value) * head_share))]
    return value


def short_count(number: int) -> str:
    """`7.6B`, `124M`: a number of parameters in two or three digits."""
    unit, size = ("B", 1e9) if number >= 999.5e6 else ("M", 1e6)
    return f"{number / size:.3g}{unit}" if number >= 99.5 * size else f"{number / size:.2g}{unit}"


LONGEST_NAME = 100
"""Characters of an id: it becomes a part of file names, which end at 255 bytes."""


def check_name(what: str, name: str) -> None:
    """Refuse what could not stand in a file's name, in a line of a report and in `pytest -k`.

    Raises:
        ValueError: naming it.
    """
    is_text = isinstance(name, str)
    if not is_text or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or len(name) > LONGEST_NAME:
        shown = (
            repr(name) if not is_text or len(name) <= LONGEST_NAME else f"{name[:20]!r}... of {len(name)} characters"
        )
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
