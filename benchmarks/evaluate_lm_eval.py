"""lm-evaluation-harness as a contender of benchmarks/evaluate.py, in the harness's own environment.

    LM_EVAL_ENVIRONMENT/bin/python benchmarks/evaluate_lm_eval.py JOB.json

The job's model is loaded once. Then each line on standard input asks for one thing, and gets one line on standard output:
{"do": "measure", "case"} has the case's questions answered, {"do": "explain", "case", "keys"} looks closer at
some of them. Imports nothing of this project, so that the harness runs with whatever versions it likes.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lm_eval import evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: labels
doc_to_target: gold
target_delimiter: ""
num_fewshot: 0
metric_list: [{{metric: acc}}]
"""


class TimedModel(HFLM):
    """The harness's own model, with the seconds that its log-likelihood requests took."""

    requests_seconds = 0.0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        started = time.perf_counter()
        answers = super().loglikelihood(requests, disable_tqdm=True)
        self.requests_seconds += time.perf_counter() - started
        return answers


def main(job_path: str) -> None:
    # What libraries print must not come between the answers.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    model = TimedModel(pretrained=job["model"], dtype=job["dtype"], batch_size=1, device=job["device"])
    tasks = _tasks(job, Path(job_path).parent / "tasks")

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    reply(
        {
            "conditions": {
                "device": model.device.type,
                "dtype": str(model.model.dtype).removeprefix("torch."),
                "threads": torch.get_num_threads(),
            },
            "attention": model.model.config._attn_implementation,
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name) for name in ("lm_eval", "torch", "transformers", "datasets", "tokenizers")},
        }
    )
    for line in sys.stdin:
        asked = json.loads(line)
        case = job["cases"][asked["case"]]
        model.batch_size_per_gpu = case["batch_size"]
        if asked["do"] == "measure":
            reply(measure(model, tasks, asked["case"]))
        else:
            reply(explain(model, case, set(asked["keys"])))


def _tasks(job: dict[str, Any], folder: Path) -> TaskManager:
    folder.mkdir()
    for name, case in job["cases"].items():
        text = _TASK.format(name=name, questions=json.dumps(case["prompts"]))
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return TaskManager(include_path=str(folder), include_defaults=False)


def measure(model: TimedModel, tasks: TaskManager, name: str) -> dict[str, Any]:
    """Seconds from the file of questions to their answers, those of them inside requests, and the answers by key."""
    model.requests_seconds = 0.0
    started = time.perf_counter()
    # Not simple_evaluate: that one lists the environment's packages with pip afterwards, for longer than a toy takes.
    found = evaluate(lm=model, task_dict=tasks.load([name]), log_samples=True, bootstrap_iters=0)
    seconds = time.perf_counter() - started
    answers = {}
    for sample in found["samples"][name]:
        labels = sample["doc"]["labels"]
        logprobs = {label: answer[0] for label, answer in zip(labels, sample["filtered_resps"], strict=True)}
        answers[sample["doc"]["key"]] = max(labels, key=lambda label: logprobs[label])
    return {
        "seconds": seconds,
        "requests_seconds": model.requests_seconds,
        "accuracy": found["results"][name]["acc,none"],
        "answers": answers,
    }


def explain(model: TimedModel, case: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """Of some prompts: the answer by one spelling of each letter, by all of them, and the latter's lead in nats.

    The softmax is taken in float32, so that rounding its result has no part in it. prompt_sha256: of the token ids of
    every prompt of the case.
    """
    lines = Path(case["prompts"]).read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    usual, model.softmax_dtype = model.softmax_dtype, torch.float32
    explained = {one["key"]: _explain(model, one, case["spellings"]) for one in questions if one["key"] in keys}
    model.softmax_dtype = usual
    return {
        "explained": explained,
        "prompt_sha256": {one["key"]: _sha256(model.tok_encode(one["prompt"])) for one in questions},
    }


def _explain(model: TimedModel, question: dict[str, Any], spellings: dict[str, list[str]]) -> dict[str, Any]:
    prompt, labels = question["prompt"], question["labels"]
    ids = model.tok_encode(prompt)
    texts = [
        text for label in labels for text in spellings[label] if model.tok_encode(prompt + text)[:-1] == ids
    ]  # those that are a single token behind the prompt
    requests = [Instance("loglikelihood", question, (prompt, text), number) for number, text in enumerate(texts)]
    told = model.loglikelihood(requests, disable_tqdm=True)
    logprobs = {text: answer[0] for text, answer in zip(texts, told, strict=True)}
    summed = {
        label: math.log(math.fsum(math.exp(logprobs[text]) for text in spellings[label] if text in logprobs))
        for label in labels
    }
    best, second = sorted(summed.values(), reverse=True)[:2]
    return {
        "one_spelling": max(labels, key=lambda label: logprobs[label]),
        "all_spellings": max(labels, key=lambda label: summed[label]),
        "lead": round(best - second, 4),
    }


def _sha256(ids: list[int]) -> str:
    return hashlib.sha256(repr(tuple(ids)).encode()).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
