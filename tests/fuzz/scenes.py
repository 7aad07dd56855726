"""The valid beginnings: for each command the files it reads, a command line that works, and the options it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fuzz import materials as m
from fuzz.materials import COMMON, RUN, Files
from fuzz.sandbox import ARRIVED


@dataclass(frozen=True)
class Scene:
    """arguments: a command line that works. options: further options and a good value each ("" for a flag).

    writes: what else than a named output may be new or changed, as patterns. train: of train_unsloth.py. codes: how it
    may end while nothing is changed.
    """

    files: Callable[[], Files]
    arguments: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    train: bool = False
    codes: tuple[int, ...] = (0, ARRIVED)

    @property
    def begins(self) -> bool:
        """Whether what it has done stays when it fails, so that it can go on."""
        shows_findings = self.arguments[:2] == (
            "data",
            "check",
        )  # the picture of --plot shows them, and exit code 2 tells
        going_on = "work/outputs/**" in self.writes or any(one.endswith(".teacher.jsonl") for one in self.writes)
        return going_on or shows_findings


_ASK = {
    "--kind": "multiple_choice", "--mode": "direct", "--permutations": "2", "--votes": "1", "--temperature": "0.7",
    "--max-new-tokens": "16", "--max-items": "3", "--seed": "1",
}  # fmt: skip
_ONE = {"--fresh": "", "--max-length": "256", "--batch-size": "2", "--load-in-4bit": "", "--vram-gb": "8"}
_NEW = ("work/data/**", "work/recipes/**")
_OUT = ("work/outputs/**", "home/cache/**")

SCENES: dict[str, Scene] = {
    "plan": Scene(m.recipe, ("plan", "recipe.yaml"), {"--vram-gb": "10", "--gpu": "rtx3080", "--price-per-hour": "1", "--json": "", "--plot": "new.png"}),
    "plan of a card": Scene(m.recipe, ("plan", "recipe.yaml", "model.base=unsloth/Qwen3-8B-bnb-4bit", "--vram-gb", "10"), {"--gpu": "rtx3080", "--json": "", "--plot": "new.png"}),
    "plan of a folder": Scene(m.local_model, ("plan", "recipe.yaml"), {"--vram-gb": "10", "--json": ""}),
    "train --dry-run": Scene(m.recipe, ("--recipe", "recipe.yaml", "--dry-run", "train.epochs=2"), writes=_OUT, train=True),
    "train": Scene(m.local_model, ("train", "--recipe", "recipe.yaml", "lora.rank=4"), writes=_OUT),
    "train --resume": Scene(lambda: m.recipe() | m.run(), ("train", "-r", "recipe.yaml", "--resume", "auto"), writes=_OUT),
    "train --resume of a run that began": Scene(lambda: m.after("train"), ("train", "-r", "recipe.yaml", "lora.rank=4", "--resume", "auto"), writes=_OUT),
    "evaluate a server": Scene(lambda: m.data() | m.server(), ("evaluate", "{http}/v1#m", "--data", "test.jsonl"), _ASK | _ONE | {"--train": "rows.jsonl", "--system": "x", "--out": "new", "--thinking": "", "--model": "m"}, writes=_OUT),
    "evaluate answers in prose": Scene(lambda: m.data() | m.server("答えはaです。"), ("evaluate", "{http}/v1#m", "--data", "test.jsonl", "--kind", "generation", "--out", "new"), _ONE | {"--max-items": "2"}, writes=_OUT),
    "evaluate a run": Scene(lambda: m.data() | m.run(), ("evaluate", RUN), _ASK | _ONE | {"--alone": "", "--out": "new", "--train": "rows.jsonl"}, writes=_OUT),
    "evaluate an adapter": Scene(lambda: m.data() | m.adapter("work/adapter"), ("evaluate", "adapter", "--data", "test.jsonl"), _ASK | _ONE | {"--alone": "", "--out": "new"}, writes=_OUT),
    "evaluate a model": Scene(lambda: m.data() | m.model_folder(), ("evaluate", "model", "--data", "test.jsonl"), _ASK | _ONE | {"--out": "new"}, writes=_OUT),
    "evaluate a GGUF": Scene(lambda: m.data() | {"work/model.q8_0.gguf": m.gguf()}, ("evaluate", "model.q8_0.gguf", "--data", "test.jsonl"), _ASK | _ONE | {"--out": "new"}, writes=_OUT),
    "compare": Scene(lambda: m.run() | m.evaluation() | COMMON, ("compare", RUN, f"{RUN}:base", "result"), {"--out": "new"}, writes=_OUT),
    "compare with a judge": Scene(lambda: m.data() | m.server("答えはaです。"), ("compare", "{http}/v1#m", "{http}/v1#n", "--data", "test.jsonl", "--kind", "generation", "--judge", "{http}/v1#m", "--max-items", "2"), {"--out": "new", "--seed": "1"}, writes=_OUT),
    "ensemble": Scene(lambda: m.data() | m.adapter("work/one") | m.adapter("work/two"), ("ensemble", "one", "two", "--data", "test.jsonl"), _ASK | _ONE | {"--weights": "2,1", "--out": "new"}, writes=_OUT),
    "rescore": Scene(lambda: COMMON | {"work/stored.jsonl": m.stored()}, ("rescore", "stored.jsonl", "--output", "new.jsonl"), {"--mode": "cot", "--labels": "4"}, writes=("work/stored.rescored.jsonl",)),
    "rescore beside": Scene(lambda: COMMON | {"work/stored.jsonl": m.stored()}, ("rescore", "stored.jsonl"), {"--mode": "cot", "--labels": "4"}, writes=("work/stored.rescored.jsonl",)),
    "report": Scene(lambda: COMMON | m.run(), ("report", RUN), writes=(f"work/{RUN}/report.html", f"work/{RUN}/experiment_log.md", f"work/{RUN}/loss_curve.png", f"work/{RUN}/*.png")),
    "doctor": Scene(lambda: dict(COMMON), ("doctor",), {"--online": ""}),
    "doctor of a run": Scene(lambda: m.data() | m.run(), ("doctor", RUN)),
    "version": Scene(lambda: dict(COMMON), ("version",)),
    "export a run": Scene(lambda: m.data() | {name: content for name, content in m.run().items() if "/export/" not in name}, ("export", RUN, "--force"), {"--gguf": "q8_0,f16", "--lora-gguf": "", "--merged": "new", "--merge-base": "auto", "--ollama": "name", "--fresh": ""}, writes=_OUT),
    "export an adapter": Scene(lambda: m.data() | m.adapter("work/adapter"), ("export", "adapter", "--data", "test.jsonl", "--gguf", "q8_0", "--out", "new"), {"--system": "x", "--max-length": "256", "--load-in-4bit": "", "--thinking": "", "--ollama": "name"}, writes=_OUT),
    "check a Modelfile": Scene(lambda: COMMON | {"work/Modelfile": m.MODELFILE, "work/model.q8_0.gguf": m.gguf()}, ("export", "--check", "Modelfile"), codes=(1,)),
    "check a GGUF": Scene(lambda: COMMON | {"work/model.q8_0.gguf": m.gguf()}, ("export", "--check", "model.q8_0.gguf"), codes=(1,)),
    "chat": Scene(lambda: COMMON | {"work/Modelfile": m.MODELFILE, "work/model.q8_0.gguf": m.gguf()}, ("chat", ".", "-p", "問い"), {"--system": "x", "--temperature": "0", "--max-new-tokens": "4", "--max-length": "256", "--seed": "1", "--threads": "1", "--base": "model.q8_0.gguf"}),
    "chat with a run": Scene(lambda: COMMON | m.run(), ("chat", RUN, "-p", "問い"), {"--system": "x", "--thinking": "", "--compare": ""}),
    "chat --compare": Scene(lambda: m.data() | m.run(), ("chat", RUN, "--compare", "-p", "問い"), {"--system": "x", "--thinking": ""}),
    "ollama check": Scene(lambda: COMMON | m.run() | m.ollama(), ("ollama", "check", RUN), {"--name": "law-direct"}, writes=_OUT),
    "ollama create": Scene(lambda: COMMON | m.run() | m.ollama(), ("ollama", "create", RUN, "--replace"), {"--name": "law-direct"}, writes=_OUT),
    "new": Scene(m.tables, ("new", "a.csv", "--model", "builtin:tiny-qwen3"), {"--name": "x", "--goal": "answer", "--map": "question=instruction,answer=output", "--vram-gb": "10", "--dry-run": "", "--overwrite": ""}, writes=_NEW),
    "new of a workbook": Scene(m.workbook, ("new", "faq.xlsx", "--model", "builtin:tiny-qwen3"), {"--sheet": "Sheet", "--dry-run": ""}, writes=_NEW),
    "new of chats": Scene(lambda: COMMON | {"work/chats.jsonl": m.as_lines(*m.CHATS)}, ("new", "chats.jsonl"), {"--goal": "style", "--model": "builtin:tiny-qwen3"}, writes=_NEW),
    "data check": Scene(m.data, ("data", "check", "rows.jsonl", "--against", "test.jsonl"), {"--model": "builtin:tiny-qwen3", "--max-seq-length": "128", "--format": "input_output", "--no-secrets": "", "--limit": "3", "--plot": "new.png", "--json": "", "--strict": ""}),
    "data check of a recipe": Scene(m.local_model, ("data", "check", "--recipe", "recipe.yaml"), {"--json": ""}),
    "data check of layouts": Scene(lambda: COMMON | m.sample("alpaca.jsonl", "sharegpt.jsonl", "messages.jsonl"), ("data", "check", "alpaca.jsonl", "sharegpt.jsonl", "messages.jsonl")),
    "data check of tables": Scene(m.tables, ("data", "check", "a.csv", "b.tsv", "c.json", "d.parquet")),
    "data check of preferences": Scene(lambda: COMMON | m.sample("preferences.jsonl"), ("data", "check", "preferences.jsonl")),
    "data preview": Scene(lambda: COMMON | {"work/chats.jsonl": m.as_lines(*m.CHATS)}, ("data", "preview", "chats.jsonl"), {"-n": "2", "--random": "", "--seed": "1", "--line": "2", "--model": "builtin:tiny-qwen3", "--thinking": "", "--max-seq-length": "32", "--html": "new.html"}),
    "data preview of a folder": Scene(lambda: m.model_folder() | {"work/chats.jsonl": m.as_lines(*m.CHATS[:1])}, ("data", "preview", "chats.jsonl", "--model", "model"), {"--html": "new.html"}),
    "data build": Scene(lambda: COMMON | {"work/questions.jsonl": m.as_lines(*m.QUESTIONS)}, ("data", "build", "questions.jsonl", "--mode", "direct", "-o", "new.jsonl"), {"--context": "gold", "--few-shot": "1", "--shuffle-choices": "1", "--language": "en", "--from": "questions", "--map": "question=question", "--first-answer": "1", "--seed": "1", "--overwrite": ""}),
    "data build from a table": Scene(lambda: COMMON | m.sample("lawqa.csv"), ("data", "build", "lawqa.csv", "--mode", "direct", "-o", "new.jsonl"), {"--from": "lawqa"}),
    "data build with search": Scene(lambda: COMMON | m.sample("corpus/passages.jsonl") | {"work/questions.jsonl": m.as_lines(*m.QUESTIONS)}, ("data", "build", "questions.jsonl", "--mode", "direct", "--context", "retrieved", "-o", "new.jsonl"), {"--corpus": "passages.jsonl", "--top-k": "2", "--ensure-gold": "", "--no-cache": ""}, writes=("home/cache/**",)),
    "data build with a teacher": Scene(lambda: COMMON | m.server("規則による。\n\n回答: b") | {"work/questions.jsonl": m.as_lines(*m.QUESTIONS)}, ("data", "build", "questions.jsonl", "--mode", "cot", "--reasoning", "teacher", "--teacher", "{http}/v1#m", "-o", "new.jsonl"), {"--teacher-replies": "2", "--teacher-tokens": "32"}, writes=("work/new.jsonl.teacher.jsonl",)),
    "data split": Scene(lambda: COMMON | {"work/rows.jsonl": m.as_lines(*m.ROWS)}, ("data", "split", "rows.jsonl", "--test", "2"), {"--dev": "1", "--out": "new", "--manifest": "split-x.json", "--seed": "1", "--threshold": "0.9", "--overwrite": ""}, writes=("work/split*.json", "work/rows.*.jsonl")),
    "data split again": Scene(lambda: m.after("data split"), ("data", "split", "rows.jsonl", "--test", "2", "--extend"), {"--overwrite": ""}, writes=("work/split*.json", "work/rows.*.jsonl")),
    "data mix": Scene(lambda: COMMON | {"work/rows.jsonl": m.as_lines(*m.ROWS), "work/chats.jsonl": m.as_lines(*m.CHATS)}, ("data", "mix", "rows.jsonl=0.5", "chats.jsonl", "-o", "new.jsonl"), {"--rows": "4", "--general": "chats.jsonl", "--general-share": "0.2", "--cap": "3", "--overwrite": "", "--seed": "1"}),
    "data export": Scene(lambda: COMMON | {"work/chats.jsonl": m.as_lines(*m.CHATS)}, ("data", "export", "chats.jsonl", "--to", "openai", "-o", "new.jsonl"), {"--system": "x", "--overwrite": "", "--price-per-million": "3", "--epochs": "2", "--max-example-tokens": "1000"}),
    "data import": Scene(lambda: COMMON | m.sample("sharegpt.jsonl"), ("data", "import", "sharegpt.jsonl", "-o", "new.jsonl"), {"--from": "sharegpt", "--to": "messages", "--overwrite": ""}),
}  # fmt: skip
