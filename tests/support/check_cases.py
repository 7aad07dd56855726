"""GGUFs and Modelfiles with one thing changed, and the alarms that a check gives for them."""

from __future__ import annotations

import struct
from pathlib import Path

from support.modelfiles import STOPS

from slimtune.core.findings import Finding, render
from slimtune.export.check.check_modelfile import check_file

CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
GO = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
NAMED = {
    "general.architecture": "qwen3", "general.name": "law", "general.license": "apache-2.0", "general.languages": ["ja"],
    "general.base_model.0.name": "Qwen3", "general.file_type": 0, "qwen3.context_length": 512,
    "tokenizer.chat_template": CHATML, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(100)] + ["<|im_end|>", "<|endoftext|>"],
    "tokenizer.ggml.eos_token_id": 100, "tokenizer.ggml.add_bos_token": False,
}  # fmt: skip
SIZES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q8_0": (8, 32, 34),
    "Q5_0": (6, 32, 22),
    "Q4_K": (12, 256, 144),
}
PARAMETERS = {"num_ctx": 512, "temperature": 0, "top_p": 0.8, "top_k": 20, "repeat_penalty": 1.0}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack("<I", 8) + text(value)


def gguf(path: Path, *tensors: tuple[str, bytes | None], cut: int = 0, **metadata) -> Path:
    """A small file by hand: tensors of 256 × 1 of a type, their bytes or zeros; metadata over NAMED, None to leave out."""
    held = {key: value for key, value in (NAMED | metadata).items() if value is not None}
    tensors = tensors or (("F32", None),)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(held))
    head += b"".join(text(key) + entry(value) for key, value in held.items())
    data = b""
    for index, (kind, raw) in enumerate(tensors):
        number, block, width = SIZES[kind]
        head += text(f"blk.{index}.weight") + struct.pack("<IQQIQ", 2, 256, 1, number, len(data))
        data += (raw or b"").ljust(256 // block * width, b"\0")
        data += b"\0" * (-len(data) % 32)
    whole = head + b"\0" * (-len(head) % 32) + data
    path.write_bytes(whole[: len(whole) - cut])
    return path


def modelfile(
    folder: Path, *, start: str = "FROM ./law.gguf", rest: str = "", template: str | None = GO, **changed
) -> Path:
    lines = [start] + ([f'TEMPLATE """{template}"""'] if template is not None else [])
    lines += [f'PARAMETER stop "{stop}"' for stop in changed.pop("stops", STOPS)]
    lines += [f"PARAMETER {name} {value}" for name, value in (PARAMETERS | changed).items() if value is not None]
    (folder / "Modelfile").write_text("\n".join([*lines, rest]) + "\n", encoding="utf-8")
    return folder / "Modelfile"


def alarms(path: Path) -> list[Finding]:
    return [one for one in check_file(path) if one.level != "note"]


def only(path: Path, level: str, *parts: str) -> Finding:
    """The one alarm that there is."""
    found = alarms(path)
    assert len(found) == 1, render(found)
    assert found[0].level == level and all(part in found[0].what for part in parts), render(found)
    return found[0]
