"""The same questions through lm-evaluation-harness, in its own environment: run by benchmarks/evaluate.py.

    python benchmarks/evaluate_lm_eval.py MODEL QUESTIONS OUTPUT BATCH_SIZE THREADS REPEATS

QUESTIONS: a line each, {"id", "prompt": the rendered text, "labels": ["a", …], "gold": index}. Imports nothing of this
project, so that the harness runs with whatever versions it likes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

_TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: labels
doc_to_target: gold
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def main(model: str, questions: str, output: str, batch_size: str, threads: str, repeats: str) -> None:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(int(threads))
    loaded = HFLM(pretrained=model, dtype="auto", batch_size=int(batch_size), device=device)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "letters.yaml").write_text(_TASK.format(questions=json.dumps(questions)), encoding="utf-8")
        tasks = TaskManager(include_path=folder, include_defaults=False)
        seconds = []
        for _ in range(int(repeats) + 1):  # the first one warms up: it also reads the file into a cache
            started = time.perf_counter()
            result = simple_evaluate(
                model=loaded,
                tasks=["letters"],
                task_manager=tasks,
                log_samples=True,
                bootstrap_iters=0,
                verbosity="ERROR",
            )
            seconds.append(time.perf_counter() - started)
    samples = result["samples"]["letters"]
    answers = {
        sample["doc"]["id"]: max(range(len(sample["filtered_resps"])), key=lambda i: sample["filtered_resps"][i][0])
        for sample in samples
    }
    found = {
        "seconds": seconds[1:],
        "accuracy": result["results"]["letters"]["acc,none"],
        "answers": answers,
        "versions": {name: metadata.version(name) for name in ("lm_eval", "torch", "transformers")},
    }
    Path(output).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
