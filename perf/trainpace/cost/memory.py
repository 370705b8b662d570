"""Live memory of a traced step: every storage, from its birth to its end, by category."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from trainpace.runs.cost import CATEGORIES


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors anywhere in `tree`."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


class Memory:
    """Bytes of every live storage, by category, and the peaks of each phase.

    A storage is temporary when it is born and is told apart by what becomes of it: `claim` moves those that still live
    into a category. Sizes are those asked for, without the allocator's rounding and fragments.
    """

    def __init__(self) -> None:
        self.phase: str | None = None
        """Peaks are kept of it; None keeps none."""
        self.now = dict.fromkeys(CATEGORIES, 0)
        self.peaks: dict[str, dict[str, int]] = {}
        self.works: dict[str, dict[str, int]] = {}
        self._live: dict[int, tuple[Any, int, str]] = {}

    def see(self, tree: Any) -> None:
        """Note the storages of new tensors."""
        for tensor in tensors(tree):
            self.note(tensor.untyped_storage())

    def note(self, storage: torch.UntypedStorage, category: str | None = None) -> None:
        """Note one storage: new, of another size, or of another category than before."""
        address, size = storage._cdata, storage.nbytes()
        known = self._live.get(address)
        if known is None:
            dead = weakref.ref(storage, self._forgets(address))
            self._live[address] = dead, size, category or "temporary"
            self.now[category or "temporary"] += size
            return
        dead, before, old = known
        if before != size or (category or old) != old:
            self.now[old] -= before
            self.now[category or old] += size
            self._live[address] = dead, size, category or old

    def claim(self, tree: Any, category: str, *, only: str | None = None) -> None:
        """Put the storages of the tensors in `tree` into `category`; with `only`, those that are in that one."""
        for tensor in tensors(tree):
            # Not to_local(), an operator: selective recompute knows each by how many of its kind came before.
            local = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
            storage = local.untyped_storage()
            known = self._live.get(storage._cdata)
            if only is None or (known is not None and known[2] == only):
                self.note(storage, category)

    def claim_rest(self, category: str) -> None:
        """Put every temporary storage that still lives into `category`."""
        for address, (dead, size, old) in list(self._live.items()):
            if old == "temporary":
                self.now[old] -= size
                self.now[category] += size
                self._live[address] = dead, size, category

    @contextmanager
    def resizes(self) -> Iterator[None]:
        """See storages that are resized, as FSDP2 does with whole parameters: no operator does it."""
        resize = torch.UntypedStorage.resize_

        def noted(storage: torch.UntypedStorage, size: int) -> Any:
            out = resize(storage, size)
            self.note(storage, "gathered")
            self.peak()
            return out

        torch.UntypedStorage.resize_ = noted  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]

    def _forgets(self, address: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            _, size, category = self._live.pop(address)
            self.now[category] -= size

        return forget

    def peak(self, spare: int = 0) -> None:
        """Compare what lives now with the phase's peaks; `spare` bytes more live while an operator runs."""
        if self.phase is None:
            return
        now = self.now
        total = sum(now.values()) + spare
        work = now["activations"] + now["temporary"] + spare
        for kept, size, of in (
            (self.peaks, total, lambda peak: sum(peak.values())),
            (self.works, work, lambda peak: peak["activations"] + peak["temporary"]),
        ):
            if self.phase not in kept or size > of(kept[self.phase]):
                kept[self.phase] = {**now, "temporary": now["temporary"] + spare}
