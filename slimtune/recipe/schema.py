"""The recipe: what the user wants. Schema, loading, overrides; every mistake at once, with its line.

Defaults live here and nowhere else. No torch: a recipe is read before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.recipe import yaml_lines
from slimtune.recipe.names import KindName, misfit

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
LORA_PRESETS = ("minimal", "standard", "full")
Share = Annotated[float, Field(ge=0, le=1)]
GgufType = Literal["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
GGUF_TYPES: tuple[GgufType, ...] = get_args(GgufType)
MergeBase = Literal["dequantised", "16bit", "auto"]


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors, and a string is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AboutSection(Section):
    """What the recipe is for, in words; shown in the table of recipes and kept in the run."""

    pattern: str = ""
    purpose: str = ""
    priority: int | None = Field(None, ge=1, description="which to try first")


class ModelSection(Section):
    base: str = Field("unsloth/Qwen3-8B-bnb-4bit", min_length=1, description="folder, hub id or builtin:NAME")
    revision: str | None = Field(None, description="a commit or tag of the hub repository")
    load_in_4bit: bool = Field(True, description="NF4 weights; false keeps 16 bit")
    max_seq_length: int = Field(2048, ge=64, le=262144, description="longest example, in tokens")
    thinking: bool = Field(False, description="train and ask with the model's thinking on")
    offload_embedding: bool | None = Field(None, description="input embedding in CPU memory; null: the plan decides")
    offload_layers: int | None = Field(None, ge=0, description="layers in CPU memory; null: none, or a last resort")


class LoraSection(Section):
    rank: int = Field(16, ge=1, le=512)
    alpha: int = Field(32, ge=1)
    dropout: Share = 0.0
    target: Literal["minimal", "standard", "full"] | list[str] = "full"

    @field_validator("target")
    @classmethod
    def _names(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str):
            return value
        if not value or any(not re.fullmatch(r"\w+", name) for name in value):
            raise ValueError(f"use {', '.join(LORA_PRESETS)} or a list of module names such as [q_proj, v_proj]")
        if {"embed_tokens", "lm_head"} & set(value):
            raise ValueError("embed_tokens and lm_head would be trained in full and cannot be merged; leave them out")
        return value


class Source(Section):
    path: str = Field(min_length=1, description="JSONL, JSON, CSV or Parquet file, or a hub dataset id")
    weight: float = Field(1.0, gt=0, le=100, description="1 = every row once, 0.5 = half of them, 2 = each twice")


class DataSection(Section):
    train: list[Source] = Field(min_length=1)
    eval: str | None = Field(None, description="held-out examples for the evaluation loss")
    mode: Literal["direct", "cot", "auto"] = "auto"
    system: str | None = None
    format: Literal["auto", "input_output", "messages", "alpaca", "sharegpt"] = "auto"
    max_overlong: Share = Field(0.0, description="share of examples longer than max_seq_length that may be left out")


class TrainSection(Section):
    method: Literal["sft"] = "sft"
    epochs: float = Field(3, gt=0, le=1000)
    max_steps: int | None = Field(None, ge=1, description="stop after so many optimizer steps")
    effective_batch_size: int = Field(16, ge=1, description="examples per optimizer step; the plan divides it up")
    per_device_train_batch_size: int | None = Field(None, ge=1, description="overrides the plan's choice")
    gradient_accumulation_steps: int | None = Field(None, ge=1, description="overrides the plan's choice")
    packing: bool = True
    row_length: int | None = Field(None, ge=64, description="tokens of a packed row; null: the plan decides")
    learning_rate: float = Field(1e-4, gt=0, lt=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Share = 0.05
    weight_decay: float = Field(0.01, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    optim: Literal["adamw_8bit", "adamw_torch"] = "adamw_8bit"
    gradient_checkpointing: Literal["unsloth", True, False] = "unsloth"
    checkpoint_skip_layers: int | None = Field(None, ge=0, description="layers not recomputed; null: the plan decides")
    double_buffer: bool | None = Field(None, description="two staging buffers; null: the plan decides")
    logging_steps: int | None = Field(None, ge=1, description="null: from the number of steps")
    eval_steps: int | None = Field(None, ge=1, description="null: from the number of steps")
    save_steps: int | None = Field(None, ge=1, description="null: from the number of steps")
    save_total_limit: int = Field(2, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1, description="evaluations without improvement")


class BudgetSection(Section):
    vram_gb: float | None = Field(10, gt=1, le=1024, description="the card as sold; null: what the machine has")
    last_resorts: bool = Field(False, description="layers in CPU memory and a lower rank where nothing else fits")
    price_per_hour: float | None = Field(None, ge=0, description="of the machine; the plan then shows the run's cost")


class EvaluateSection(Section):
    data: str = Field(min_length=1)
    kind: KindName = "multiple_choice"
    mode: Literal["direct", "cot"] = Field("direct", description="letters after the prompt, or an argued reply")
    max_items: int | None = Field(None, ge=1)
    permutations: int = Field(1, ge=1, le=24, description="orders of the choices that each question is asked in")
    votes: int = Field(1, ge=1, le=64, description="replies per question in cot mode; the majority answers")
    temperature: float = Field(0.7, gt=0, le=2, description="of several votes; a single reply is greedy")
    top_p: float = Field(0.8, gt=0, le=1, description="of several votes")
    max_new_tokens: int = Field(512, ge=1, le=32768, description="of a reply in cot mode and for generation")
    samples: int | None = Field(
        None, ge=0, le=20, description="prompts answered before and after; null: 3, none where letters answer"
    )

    @property
    def samples_wanted(self) -> int:
        letters = self.kind == "multiple_choice" and self.mode == "direct"
        return self.samples if self.samples is not None else 0 if letters else 3

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateSection:
        if why := misfit(self.kind, self.mode, self.permutations, self.votes)[1]:
            raise ValueError(why)
        return self


class ExportSection(Section):
    gguf: list[GgufType] = ["q8_0"]
    ollama_name: str | None = Field(None, pattern=NAME)
    require_verdict: bool = Field(True, description="no GGUF of a model that is worse or collapsed")
    lora_gguf: bool = Field(False, description="also the adapter alone, for servers that hold several")
    merged: str | None = Field(None, min_length=1, description="folder for merged weights; null: in the run's export/")
    merge_base: MergeBase = Field("dequantised", description="auto: whichever is closer to the adapter, measured")
    license: str | None = Field(None, min_length=1, description="in the GGUF, e.g. apache-2.0; null: the base's")
    languages: list[str] = Field([], description="in the GGUF, e.g. [ja]; empty: the base's")
    parity_questions: int | None = Field(
        None, ge=0, description="of the verdict's, asked of each GGUF; null: 100 where letters answer, else none"
    )
    num_ctx: int | None = Field(None, ge=256, description="null: max_seq_length and room for an answer")
    temperature: float = Field(0.0, ge=0, le=2)

    @field_validator("gguf")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("the same type is listed twice")
        return value


class RunSection(Section):
    output_dir: str = Field("outputs", min_length=1)
    seed: int = Field(42, ge=0, lt=2**31)
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []


class Recipe(Section):
    """What the user wants."""

    name: str = Field(pattern=NAME, description="the run's folder under output_dir")
    about: AboutSection = AboutSection()
    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    data: DataSection
    train: TrainSection = TrainSection()
    budget: BudgetSection = BudgetSection()
    evaluate: EvaluateSection | None = None
    export: ExportSection | None = None
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _gate_has_a_verdict(self) -> Recipe:
        if self.export and self.export.require_verdict and self.evaluate is None:
            raise ValueError("export.require_verdict needs an 'evaluate' section (or set require_verdict: false)")
        return self

    @model_validator(mode="after")
    def _letters_come_first(self) -> Recipe:
        letters = self.evaluate and self.evaluate.kind == "multiple_choice" and self.evaluate.mode == "direct"
        if self.model.thinking and letters:
            raise ValueError(
                "evaluate reads the first token as the answer, and a thinking model begins with a thought; "
                "set evaluate.mode: cot"
            )
        return self


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its `base:` parent and the command line's `section.key=value` overrides.

    Raises SlimtuneError with every problem of the file and the overrides at once (exit code 2).
    """
    values, places = _with_parent(Path(path), ())
    problems = _apply_overrides(values, places, overrides)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        explained: dict[str, Problem] = {}
        for detail in error.errors(include_url=False):
            problem = _explain(detail, places, str(path))
            # A value that fits no member of a union fails once for each; the first says what was meant.
            explained.setdefault(problem.where, problem)
        problems += explained.values()
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise SlimtuneError(problems, summary=f"{count} in recipe {path}")
    return recipe


def sources(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Where each value that a recipe sets comes from: {"train.epochs": "recipes/direct.yaml:14"}; the others are defaults.

    Raises SlimtuneError as `load` does for a file that cannot be read.
    """
    values, places = _with_parent(Path(path), ())
    _apply_overrides(values, places, overrides)
    return {yaml_lines.dotted(where): place for where, place in places.items()}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every value spelled out, ready to be loaded again."""
    return yaml.safe_dump(recipe.model_dump(), allow_unicode=True, sort_keys=False)


def _with_parent(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], dict[yaml_lines.Path_, str]]:
    """The file's values over its parent's; for each value the "file:line" it came from."""
    resolved = path.resolve()
    if resolved in children:
        chain = " → ".join(p.name for p in (*children, resolved))
        raise fail("recipes inherit from each other in a circle", where=str(path), fix=f"break the chain {chain}")
    values, lines = yaml_lines.load(path)
    places = {where: f"{path}:{line}" for where, line in lines.items()}
    parent = values.pop("base", None)
    if parent is None:
        return values, places
    if not isinstance(parent, str):
        raise fail("must name one recipe file", where=f"{places[('base',)]} base", fix="base: direct.yaml")
    parent_path = path.parent / parent
    if not parent_path.is_file():
        raise fail(
            f"no such recipe: {parent_path}", where=f"{places[('base',)]} base", fix="it is relative to this file"
        )
    inherited, inherited_places = _with_parent(parent_path, (*children, resolved))
    for where in places:
        if not isinstance(_value_at(values, where), dict):
            _forget_below(inherited_places, where)
    return _merge(inherited, values), {**inherited_places, **places}


def _value_at(values: Any, path: yaml_lines.Path_) -> Any:
    for part in path:
        # `base`, which names the parent, has been taken out.
        values = values.get(part) if isinstance(values, dict) else values[part]
    return values


def _forget_below(places: dict[yaml_lines.Path_, str], path: yaml_lines.Path_) -> None:
    """A value that is replaced whole takes the places of its parts with it."""
    for below in [where for where in places if len(where) > len(path) and where[: len(path)] == path]:
        del places[below]


def _merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else of the child replaces the parent's."""
    merged = dict(parent)
    for key, value in child.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_overrides(
    values: dict[str, Any], places: dict[yaml_lines.Path_, str], overrides: Sequence[str]
) -> list[Problem]:
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = tuple(key.split("."))
        if not equals or not all(parts):
            problems.append(
                Problem(
                    f"'{override}' is not an override", "command line", "write section.key=value, e.g. train.epochs=1"
                )
            )
            continue
        try:
            value = yaml_lines.parse_value(text)
        except SlimtuneError as error:
            problems.extend(error.problems)
            continue
        target = values
        for part in parts[:-1]:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        target[parts[-1]] = value
        _forget_below(places, parts)
        for depth in range(1, len(parts) + 1):
            places[parts[:depth]] = "command line"
    return problems


def _explain(detail: ErrorDetails, places: dict[yaml_lines.Path_, str], path: str) -> Problem:
    """A pydantic error in the words of someone who wrote the file."""
    # Union members add their own name to the location: keep the part that exists in the file.
    location = tuple(part for part in detail["loc"] if not (isinstance(part, str) and re.search(r"[\[\(]", part)))
    place, shown = "", location
    for depth in range(len(location), -1, -1):
        if location[:depth] in places:
            place = places[location[:depth]]
            break
    while shown and shown not in places and shown[-1] in {"bool", "str"}:
        shown = shown[:-1]
    where = f"{place or path} {yaml_lines.dotted(shown)}".strip()
    kind, given = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        return Problem(f"unknown key '{location[-1]}'", where, _did_you_mean(location))
    if kind == "missing":
        return Problem("is missing", where, "add it; see recipes/direct.yaml")
    if kind == "literal_error":
        choices = str(detail.get("ctx", {}).get("expected", ""))
        near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", choices), n=1)
        return Problem(f"'{given}' is not one of {choices}", where, f"did you mean '{near[0]}'?" if near else "")
    if kind == "string_pattern_mismatch":
        return Problem(f"'{given}' is not a usable name", where, "use lower-case letters, digits, '.', '_' and '-'")
    if kind == "value_error":
        return Problem(str(detail.get("ctx", {}).get("error", detail["msg"])), where)
    message = detail["msg"].removeprefix("Input ").replace("should be", "must be")
    return Problem(f"{message}, not {given!r}", where)


def _did_you_mean(location: tuple[str | int, ...]) -> str:
    model: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        model = _section_type(model, part)
        if model is None:
            return ""
    names = list(model.model_fields)
    wrong = str(location[-1])
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    elsewhere = [f"{section}.{wrong}" for section in Recipe.model_fields if _has_field(section, wrong)]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    return f"known keys: {', '.join(names)}"


def _section_type(model: Any, field: str) -> type[BaseModel] | None:
    info = model.model_fields.get(field)
    if info is None:
        return None
    for candidate in (info.annotation, *getattr(info.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _has_field(section: str, name: str) -> bool:
    model = _section_type(Recipe, section)
    return model is not None and name in model.model_fields
