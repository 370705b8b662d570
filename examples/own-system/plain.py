"""A training loop of one's own: transformers' model under torch's DDP, on sequences that are packed already.

    torchrun --nproc-per-node 2 plain.py MODEL TOKENS.parquet STEPS

Prints a line a step. Knows nothing of trainpace.
"""

import sys
import time

import pyarrow.parquet
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM


def main() -> None:
    """Train, and print what each step took."""
    folder, tokens, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    table = pyarrow.parquet.read_table(tokens)
    ids, labels = (torch.tensor(table[name].to_pylist()) for name in ("input_ids", "labels"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, use_cache=False).to(device)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    for step in range(steps):
        begin = time.perf_counter()
        row = slice(step * ranks + rank, step * ranks + rank + 1)
        loss = trained(input_ids=ids[row].to(device), labels=labels[row].to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach() / ranks
        dist.all_reduce(mean)
        if rank == 0:
            seconds = time.perf_counter() - begin
            print(f"step {step}: {seconds:.6f} s, {ids.shape[1]} tokens, loss {mean.item():.5f}", flush=True)  # noqa: T201 - a program
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
