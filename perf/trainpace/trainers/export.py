"""What an external system trains: the native trainer's first weights and tokens, in the form that others read.

    python -m trainpace.trainers.export < request.json

writes, once for each content, a folder with `model/` (a transformers checkpoint and a tokenizer), `tokens/` (what
`datasets.load_from_disk` reads) and `parquet/train.parquet`, and prints its path and the data's identity. Torch and
transformers are imported in that process alone.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainpace.cases.workload import Workload
from trainpace.data.base import Data
from trainpace.errors import RunFailed, what_to_install

FORMAT = 2
"""Part of the key: a change of what is written needs a new number. 2: the first label of a sequence is none."""


@dataclass(frozen=True)
class Exported:
    """Where it lies, the identity of the tokens, and what was found in each source."""

    folder: Path
    identity: dict[str, Any]
    trained_on: list[dict[str, Any]]


def exported(workload: Workload, data: Data, cache: Path) -> Exported:
    """Model and tokens of `workload`, made or found in `cache`.

    Raises:
        RunFailed: with what the process said, where they cannot be made.
    """
    request = {
        "workload": workload.model_dump(),
        "sources": data.sources,
        "tokenizer": data.tokenizer,
        "skip_bad": data.skip_bad,
        "seed": data.seed,
        "cache": str(cache),
    }
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "trainpace.trainers.export"],
        cwd=package,
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        if missing := what_to_install(done.stderr.rstrip().rpartition("\n")[2]):
            raise RunFailed(f"the workload is written for other systems with it: {missing}")
        raise RunFailed("the workload could not be written for other systems", detail=done.stderr[-4000:])
    answer = json.loads(done.stdout.splitlines()[-1])
    return Exported(Path(answer["folder"]), answer["identity"], answer["trained_on"])


def main() -> None:
    """Answer the request on the standard input."""
    from trainpace.data import packed
    from trainpace.data.cache import content_key, entry

    request = json.loads(sys.stdin.read())
    workload, cache = Workload.model_validate(request["workload"]), Path(request["cache"])
    data = packed(
        sources=request["sources"],
        tokenizer=request["tokenizer"],
        sequence=workload.sequence,
        count=(workload.warmup + workload.steps) * workload.ranks // workload.sp,
        seed=request["seed"],
        cache=cache,
        skip_bad=request["skip_bad"],
    )
    key = content_key(FORMAT, workload.decoder.model_dump(), workload.sequence, workload.dtype, data.identity)

    def build(folder: Path) -> None:
        _write_model(workload, folder / "model")
        _write_tokens(data.ids, data.labels, folder)

    folder = entry(cache, f"exported-{key}", build)
    sys.stdout.write(
        json.dumps({"folder": str(folder), "identity": data.identity, "trained_on": data.trained_on}) + "\n"
    )


def _write_model(workload: Workload, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from trainpace.trainers.native.model import initial, transformers_config

    config = transformers_config(workload.decoder, workload.sequence)
    # What has the head's own size must not be asked for at another.
    config.dtype = torch.bfloat16 if workload.dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)  # type: ignore[no-untyped-call]
    prefix = f"{model.base_model_prefix}."
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Weights are drawn by the native model's names.
            own = f"body.{name.removeprefix(prefix)}" if name.startswith(prefix) else "head.weight"
            parameter.copy_(initial(own, parameter.shape, config, "cpu"))
    model.save_pretrained(folder)
    _write_tokenizer(workload.decoder.vocabulary, folder)


def _write_tokenizer(vocabulary: int, folder: Path) -> None:
    """A tokenizer that others can load. The tokens are made already: it is asked for its special ids alone."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<{index}>": index for index in range(3, vocabulary)}
    unknown, begin, end = list(words)[:3]
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unknown))
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end, pad_token=end
    ).save_pretrained(folder)


def _write_tokens(ids: Any, labels: Any, folder: Path) -> None:
    import numpy as np
    from datasets import Dataset  # type: ignore[import-untyped]

    from trainpace.data.tokenized import IGNORED

    judged = np.array(labels, dtype=np.int64)
    # Nothing comes before the first token, so that nobody predicts it; older transformers would count it all the same.
    judged[:, 0] = IGNORED
    rows = {
        "input_ids": list(np.asarray(ids, dtype=np.int64)),
        "labels": list(judged),
        "attention_mask": list(np.ones(np.shape(ids), dtype=np.int8)),
    }
    made = Dataset.from_dict(rows)
    made.save_to_disk(str(folder / "tokens"))
    (folder / "parquet").mkdir()
    made.to_parquet(str(folder / "parquet" / "train.parquet"))


if __name__ == "__main__":
    main()
