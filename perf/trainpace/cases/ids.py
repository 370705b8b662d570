"""Cases of one id: those that differ in their GPUs are told apart by them, others are refused."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from trainpace.cases.published import Case


def told_apart(cases: Sequence[Case]) -> list[Case]:
    """`cases` in their order; of those with one id and different GPUs each names its GPUs."""
    gpus = defaultdict(set)
    for case in cases:
        gpus[case.id].add(case.gpus)
    return [replace(case, name_gpus=True) if len(gpus[case.id]) > 1 else case for case in cases]


def collision(cases: Iterable[tuple[str, Case]]) -> str | None:
    """What two of `cases`, each with the place where it stands, have one id for; None: no two have one."""
    found: dict[str, tuple[str, Case]] = {}
    for place, case in cases:
        other_place, other = found.setdefault(case.id, (place, case))
        if differs := _differences(other, case):
            both = f"{other_place} and {place} are two cases with one id, {case.id}: {', '.join(differs)}"
            return f"{both}; the id must tell them apart: {_remedy(other, case)}"
    return None


def _differences(one: Case, other: Case) -> list[str]:
    """`gpus=2 and 8`; the title of a model is no difference, and accumulation that is not given is sp."""
    one, other = (replace(each, accumulation=each.accumulation or each.sp) for each in (one, other))
    found = [
        f"{field.name}={getattr(one, field.name)} and {getattr(other, field.name)}"
        for field in fields(Case)
        if field.name not in ("model", "name_gpus") and getattr(one, field.name) != getattr(other, field.name)
    ]
    for part in ("shape", "mini"):
        mine, theirs = (getattr(each.model, part) for each in (one, other))
        if mine is None or theirs is None:
            found += [f"model.{part}={mine} and {theirs}"] if mine != theirs else []
            continue
        values = ((name, getattr(mine, name), getattr(theirs, name)) for name in type(mine).model_fields)
        found += [f"model.{part}.{name}={here} and {there}" for name, here, there in values if here != there]
    return found


def _remedy(one: Case, other: Case) -> str:
    if one.model.shape != other.model.shape or one.model.mini != other.model.mini:
        return "give the models different names"
    return "write name_gpus=True in both" if one.gpus != other.gpus else 'give one of them a tag, tags=("small",)'
