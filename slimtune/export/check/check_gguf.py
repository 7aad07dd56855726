"""Find what is wrong with a GGUF file from any source, and compare an exported one with what was meant."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.findings import Finding
from slimtune.core.units import size_text
from slimtune.data.chat_template import render_template
from slimtune.export.model_card import base_reference
from slimtune.export.modelfile.modelfile_reader import first_difference
from slimtune.models import families
from slimtune.models.gguf_header import CONVERT_AGAIN, Gguf, Tensor, array_text, faults, read_gguf

LOOKED_AT = 256 * 2**20
"""Bytes of 16- and 32-bit tensors that are searched for NaN and infinity, where not asked for all."""
_CHUNK = 8 * 2**20
_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # as numpy reads them; it has no bf16
_FROM_CARD = "put it into the front matter of README.md in the model's folder, then convert it again"

# general.file_type: its name, and the types that llama.cpp gives matrices of such a file by intention. Any other is what it
# falls back to where a matrix's rows do not fit, or a wish of whoever quantised it.
FILE_TYPES: dict[int, tuple[str, frozenset[str]]] = {
    0: ("F32", frozenset({"F32"})),
    1: ("F16", frozenset({"F16"})),
    7: ("Q8_0", frozenset({"Q8_0"})),
    10: ("Q2_K", frozenset({"Q2_K", "Q3_K", "Q4_K", "Q6_K"})),
    11: ("Q3_K_S", frozenset({"Q3_K", "Q6_K"})),
    12: ("Q3_K_M", frozenset({"Q3_K", "Q4_K", "Q5_K", "Q6_K"})),
    13: ("Q3_K_L", frozenset({"Q3_K", "Q5_K", "Q6_K"})),
    14: ("Q4_K_S", frozenset({"Q4_K", "Q5_K", "Q6_K"})),
    15: ("Q4_K_M", frozenset({"Q4_K", "Q5_K", "Q6_K"})),
    16: ("Q5_K_S", frozenset({"Q5_K", "Q6_K"})),
    17: ("Q5_K_M", frozenset({"Q5_K", "Q6_K"})),
    18: ("Q6_K", frozenset({"Q6_K"})),
    32: ("BF16", frozenset({"BF16"})),
}
_PROBE = ({"role": "user", "content": "u"}, {"role": "assistant", "content": "\u27eaanswer\u27eb"})


def check_gguf(path: Path, *, deep: bool = False, stops: Sequence[str] = ()) -> list[Finding]:
    """Return every finding. deep: search every byte of the 16- and 32-bit tensors for NaN and infinity.

    stops: of the Modelfile that it is served with, which can end an answer that the file itself does not.
    """
    try:
        gguf = read_gguf(path)
    except SlimtuneError as error:
        return [Finding("error", one.what, one.fix, one.where) for one in error.problems]
    found = [*_size(gguf), *_types(gguf), *_numbers(gguf, deep)]
    if gguf.text("general.type") == "adapter":
        what = "this is a LoRA adapter, not a model: its base model was not checked"
        found.append(Finding("note", what, "use it as ADAPTER, FROM the model that it was trained on"))
    else:
        found += [*_named(gguf), *_template(gguf, stops), *_tokens(gguf), *_context(gguf)]
    return [replace(one, where=str(path)) for one in found]


def can_think(template: str) -> bool:
    """As Ollama decides it: by the tag in the template's text, whatever the template does with it."""
    return any(opens in template for opens, _ in families.thought_tags())


def eos_text(gguf: Gguf) -> str | None:
    """The text of the token that ends generation; None where the file does not say."""
    return _token(gguf, "tokenizer.ggml.eos_token_id")


def end_of_turn(template: str) -> str | None:
    """What the template writes after an answer, without white space around it; None where it cannot be rendered."""
    try:
        text = render_template(template, _PROBE, add_generation_prompt=False, thinking=False)
    except SlimtuneError:
        return None
    _, answer, after = text.partition(_PROBE[1]["content"])
    return after.strip() if answer else None


def metadata_problems(path: Path, expected: Mapping[str, Any]) -> list[Problem]:
    """What a GGUF does not say, or says otherwise than `expected`, of which None is not looked at.

    Its keys: "name", "architecture", "license", "chat_template", "eos" (text); "base_model" (as given to model_card);
    "languages", "tags" (each must be there); "tensor_types" (a count for each type, or the types of all matrices).
    Raises SlimtuneError where the file cannot be read, ValueError for another key.
    """
    others = {"eos", "base_model", "languages", "tags", "chat_template", "tensor_types"}
    if unknown := expected.keys() - others - {"name", "architecture", "license"}:
        raise ValueError(f"nothing is known of {sorted(unknown)}")
    gguf = read_gguf(path)
    texts = [(f"general.{key}", expected.get(key)) for key in ("name", "architecture", "license")]
    if expected.get("base_model") is not None:
        texts.append(base_reference(expected["base_model"]))
    values = [(key, gguf.text(key), meant) for key, meant in texts]
    values.append(("the token that ends generation", eos_text(gguf), expected.get("eos")))
    told = [
        f"{called} is {'missing' if found is None else repr(found)}, not {meant!r}"
        for called, found, meant in values
        if meant not in (None, found)
    ]
    for key in ("languages", "tags"):
        missing = [one for one in expected.get(key) or () if one not in gguf.texts(f"general.{key}")]
        if missing:
            told.append(f"general.{key} lacks {', '.join(map(repr, missing))}")
    template, trained = gguf.text("tokenizer.chat_template"), expected.get("chat_template")
    if trained not in (None, template):
        different = template and f"the chat template is not training's: {first_difference(trained, template)}"
        told.append(different or "the file has no chat template")
    if expected.get("tensor_types") is not None:
        told += _other_types(gguf, expected["tensor_types"])
    return [Problem(what, path.name, CONVERT_AGAIN) for what in told]


def _other_types(gguf: Gguf, meant: Mapping[str, int] | Collection[str]) -> list[str]:
    if isinstance(meant, Mapping):
        found = gguf.type_counts
        return [] if found == dict(meant) else [f"its tensors are {_counted(found)}, not {_counted(meant)}"]
    others = Counter(tensor.type for tensor in _matrices(gguf) if tensor.type not in meant)
    what = f"{_counted(others)} among its matrices, where only {', '.join(sorted(meant))} were meant"
    return [what] if others else []


# ---- what is in the file ------------------------------------------------------------------------------------------


def _size(gguf: Gguf) -> Iterator[Finding]:
    unknown = Counter(tensor.type for tensor in gguf.tensors if tensor.bytes is None)
    if unknown:
        yield Finding("note", f"{_counted(unknown)}: the size of these types is not known")
    yield from (Finding("error", one.what, one.fix) for one in faults(gguf))


def _types(gguf: Gguf) -> Iterator[Finding]:
    matrices = Counter(tensor.type for tensor in _matrices(gguf))
    if matrices:
        yield Finding("note", f"matrices: {_counted(matrices)}")
    number = gguf.number("general.file_type")
    if number is None or number not in FILE_TYPES:
        if gguf.text("general.type") != "adapter":
            what = "does not state its file type" if number is None else f"has the unknown file type {number}"
            yield Finding("note", f"the file {what}")
        return
    name, meant = FILE_TYPES[number]
    # Some matrices stay F32 in every file, such as the router of a mixture of experts.
    others = {kind: count for kind, count in matrices.items() if kind not in meant and kind != "F32"}
    if others and not meant & matrices.keys():
        what = f"the file says {name}, but none of its matrices has that type: {_counted(others)}"
        yield Finding("error", what, "quantise the 16-bit file again, or name this one after its real type")
    elif others:
        what = f"the file says {name}, but of {sum(matrices.values())} matrices {_counted(others)}: rows that do not fit a K-quant's blocks of 256, or a mixture of someone's own"
        yield Finding("warning", what, "compare its answers with the 16-bit file's before relying on it")


def _numbers(gguf: Gguf, deep: bool) -> Iterator[Finding]:
    """NaN and infinity, which make every answer nonsense. deep: look at more than LOOKED_AT bytes."""
    import numpy

    floats = [
        one
        for one in gguf.tensors
        if one.type in _FLOATS and one.bytes and gguf.data_start + one.offset + one.bytes <= gguf.size
    ]
    broken, looked, total = [], 0, sum(one.bytes or 0 for one in floats)
    limit = total if deep else LOOKED_AT
    for tensor in floats:
        form = numpy.dtype(_FLOATS[tensor.type])
        size, bad = min(tensor.bytes or 0, limit - looked), False
        for start in range(0, size, _CHUNK):
            place, count = gguf.data_start + tensor.offset + start, min(size - start, _CHUNK) // form.itemsize
            values = numpy.fromfile(gguf.path, form, count, offset=place)
            looked += values.nbytes
            finite = numpy.isfinite(values) if tensor.type != "BF16" else (values & 0x7F80) != 0x7F80
            bad |= not finite.all()
        if bad:
            broken.append(tensor.name)
    if broken:
        what = f"{len(broken)} tensors hold NaN or infinity ({broken[0]!r} is the first)"
        yield Finding("error", what, "check the training loss; bf16 and q8_0 hold values that f16 cannot")
    if looked < total:
        what = f"searched for NaN and infinity: the first {size_text(looked)} of {size_text(total)} in 16 and 32 bits"
        yield Finding("note", what)


def _named(gguf: Gguf) -> Iterator[Finding]:
    architecture = gguf.text("general.architecture")
    for key, lost in (("general.name", "programs show no name"), ("general.license", "the terms of use are unknown")):
        if not gguf.text(key):
            yield Finding("warning", f"{key} is missing: {lost}", _FROM_CARD)
    if not any(key.startswith("general.base_model.0.") for key in gguf.metadata):
        yield Finding("warning", "the base model is not named (general.base_model.0.*)", _FROM_CARD)
    if not gguf.texts("general.languages"):
        yield Finding("note", "general.languages is missing", _FROM_CARD)
    told = [gguf.text("general.name"), architecture, gguf.text("general.license")]
    yield Finding("note", ", ".join(one for one in told if one) or "the file has no name, architecture or license")


def _template(gguf: Gguf, stops: Sequence[str]) -> Iterator[Finding]:
    template = gguf.text("tokenizer.chat_template")
    if not template:
        what = "the file has no chat template: without a TEMPLATE, Ollama sends the bare question"
        yield Finding("warning", what, "save the tokenizer with its chat template, and convert it again")
        return
    if can_think(template):
        what = "the chat template can think, so Ollama thinks by default; a model trained without thinking then answers nonsense"
        fix = "if it was trained without thinking, ask with think=false, or use slimtune export"
        yield Finding("warning", what, fix)
    ends, eos = end_of_turn(template), eos_text(gguf)
    if ends is None:
        yield Finding("warning", "the chat template does not render a plain conversation", "try it in llama.cpp")
        return
    if eos is None:
        return
    other = _token(gguf, "tokenizer.ggml.eot_token_id")
    if not ends.startswith(eos) and not (other and ends.startswith(other)):
        what = f"the template ends an answer with {ends[:20]!r}, but the token that ends generation is {eos!r}"
        fix = "give the Modelfile that stop, or set eos_token in tokenizer_config.json and convert the model again"
        if any(ends.startswith(stop) for stop in stops if stop):
            yield Finding("warning", f"{what}; only the Modelfile's stop ends an answer", fix)
        else:
            yield Finding("error", f"{what}: the model continues after its answer", fix)


def _tokens(gguf: Gguf) -> Iterator[Finding]:
    if eos_text(gguf) is None:
        what = "there is no token that ends generation (tokenizer.ggml.eos_token_id): the model fills the context"
        yield Finding("error", what, CONVERT_AGAIN)
    if gguf.text("tokenizer.ggml.model") == "gpt2" and gguf.text("tokenizer.ggml.pre") in (None, "", "default"):
        what = "the pre-tokenizer is not named (tokenizer.ggml.pre): llama.cpp guesses, and makes other tokens"
        yield Finding("error", what, "convert it again with a newer llama.cpp")
    fix = "set add_bos_token to false in tokenizer_config.json, and convert it again"
    begins = gguf.metadata.get("tokenizer.ggml.add_bos_token") is True
    bos, template = _token(gguf, "tokenizer.ggml.bos_token_id"), gguf.text("tokenizer.chat_template") or ""
    family = families.of_gguf(gguf.text("general.architecture"))
    if begins and family and not family.begins_text:
        what = f"{bos or 'a token'!r} precedes every prompt, but {family.title} is trained without"
        yield Finding("error", f"add_bos_token is true: {what}", fix)
    elif begins and bos and bos in template:
        what = f"add_bos_token is true and the template writes {bos!r} as well: prompts may begin with it twice"
        yield Finding("warning", what, fix)


def _context(gguf: Gguf) -> Iterator[Finding]:
    length = context_length(gguf)
    if length is None:
        yield Finding("warning", "the training context is missing (context_length)", CONVERT_AGAIN)
    else:
        yield Finding("note", f"training context: {length} tokens")


def context_length(gguf: Gguf) -> int | None:
    """Tokens; None where the file does not say."""
    return gguf.number(f"{gguf.text('general.architecture')}.context_length")


def _token(gguf: Gguf, key: str) -> str | None:
    number = gguf.number(key)
    return None if number is None else array_text(gguf, "tokenizer.ggml.tokens", number)


def _matrices(gguf: Gguf) -> Sequence[Tensor]:
    return [tensor for tensor in gguf.tensors if len(tensor.shape) > 1]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
