"""A run as its export leaves it for a chat, and what `slimtune chat` finds in it."""

import json
import os

from support.modelfiles import write_modelfile

from slimtune.serve import chat_model

CONTEXT = 512
SYSTEM = "記号で答えよ。"


def make_run(folder, gguf=None, *, parameters=(), system=SYSTEM, thinking=False):
    """A run's folder as an export leaves it; without a real GGUF one that nobody loads."""
    export = folder / "run" / "export"
    export.mkdir(parents=True)
    model = {"base": "builtin:tiny-qwen3", "revision": None, "load_in_4bit": True}
    model |= {"thinking": thinking, "max_seq_length": 256}
    (export.parent / "recipe.yaml").write_text(
        json.dumps({"model": model, "data": {"system": system}}), encoding="utf-8"
    )
    for name in ("manifest.json", "plan.json"):
        (export.parent / name).write_text("{}", encoding="utf-8")
    if gguf is None:
        (export / "law.q8_0.gguf").write_bytes(b"GGUF")
    else:
        os.link(gguf, export / "law.q8_0.gguf")
    write_modelfile(
        export / "Modelfile",
        gguf_name="law.q8_0.gguf",
        family="qwen3",
        thinking=thinking,
        system=system,
        num_ctx=CONTEXT,
    )
    with (export / "Modelfile").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in parameters)
    return export.parent


def found(text):
    return chat_model.find(chat_model.spec_of(str(text)))
