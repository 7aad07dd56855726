"""A run as its export leaves it for Ollama, and an engine that answers its golden prompts."""

import json

from support.modelfiles import write_modelfile

SYSTEM = "記号で答えよ。"
ANSWERS = {"問い一": "a", "問い二": "b", "問い三": "c", "「引用」と\nスペース": "丁\n二行目"}
THOUGHT = "<think>\n民法を\n考える。\n</think>\n\n"


def make_run(
    folder, *, thinking=False, golden=None, parity=(4, 4), system=None, name="law-direct", ended=True, max_new_tokens=64
):
    """A run's folder as an export leaves it. parity: answers_equal of prompts, None for no file."""
    export = folder / "run" / "export"
    export.mkdir(parents=True)
    (export.parent / "manifest.json").write_text(json.dumps({"name": "direct", "export": {"ollama_name": name}}))
    (export / "direct.q8_0.gguf").write_bytes(b"GGUF and so on")
    write_modelfile(
        export / "Modelfile",
        gguf_name="direct.q8_0.gguf",
        family="qwen3",
        thinking=thinking,
        system=system,
        num_ctx=512,
    )
    rows = golden
    if rows is None:
        opening = [{"role": "system", "content": SYSTEM}]
        rows = [
            {
                "id": f"q{number}",
                "messages": [*opening, {"role": "user", "content": question}],
                "answer": (THOUGHT if thinking else "") + answer,
                "max_new_tokens": max_new_tokens,
                "ended": ended,
                "thinking": thinking,
            }
            for number, (question, answer) in enumerate(ANSWERS.items(), 1)
        ]
    (export / "golden.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if parity is not None:
        check = {"answers_equal": parity[0], "prompts": parity[1]}
        (export / "parity.json").write_text(json.dumps({"passed": True, "files": {"direct.q8_0.gguf": check}}))
    return export.parent


def answering(changed=None, *, thought="", thinking_too="nonsense"):
    """An engine that knows ANSWERS, but for `changed`. thinking_too: what it says where the prompt lets it think."""
    answers = ANSWERS | (changed or {})

    def engine(messages, thinks):
        said = answers[messages[-1]["content"]]
        return thought + said if thought or not thinks else f"<think>\n{thinking_too}\n</think>\n\n{said}"

    return engine


def result(run_folder):
    return json.loads((run_folder / "export" / "ollama.json").read_text(encoding="utf-8"))
