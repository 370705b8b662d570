"""The shortest program around transformers.Trainer: trains packed sequences, and writes its state.

    torchrun --nproc-per-node 2 hf_trainer.py train.json

Run by its own interpreter; imports nothing of `perf`.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Train what the file says."""
    import torch
    from datasets import load_dataset  # type: ignore[import-untyped]
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

    request = json.loads(Path(sys.argv[1]).read_text())
    arguments = TrainingArguments(**request["arguments"])
    tokens = load_dataset("parquet", data_files=request["tokens"], split="train")
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32, use_cache=False)
    trainer = Trainer(model=model, args=arguments, train_dataset=tokens, data_collator=default_data_collator)
    trainer.train()
    trainer.save_state()


if __name__ == "__main__":
    main()
