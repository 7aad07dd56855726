"""The recipe: what the user wants, section by section. Defaults live here and nowhere else."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from slimtune.recipe.names import LANGUAGE, LICENSE, FormatName, GgufType, KindName, MergeBase, misfit
from slimtune.recipe.paths import PathText

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
LORA_PRESETS = ("minimal", "standard", "full")
_MOST_STEPS, _MOST_COUNTED = 10**9, 10**6
"""Larger numbers are slips of the keyboard, and arithmetic with them fails somewhere far away."""
Share = Annotated[float, Field(ge=0, le=1)]


class MisfitError(ValueError):
    """A value that does not fit others. key: where it stands, within what is being checked."""

    def __init__(self, what: str, *key: str):
        super().__init__(what)
        self.key = key


class Section(BaseModel):
    """A part of the recipe: unknown keys are errors, and a string is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class AboutSection(Section):
    """What the recipe is for, in words. Shown in the table of recipes and recorded in the run."""

    pattern: str = ""
    purpose: str = ""
    priority: int | None = Field(None, ge=1, le=_MOST_COUNTED, description="which to try first")


class ModelSection(Section):
    base: PathText = Field("unsloth/Qwen3-8B-bnb-4bit", min_length=1, description="folder, hub id or builtin:NAME")
    revision: str | None = Field(None, description="a commit or tag of the hub repository")
    load_in_4bit: bool = Field(True, description="NF4 weights; false keeps 16 bit")
    max_seq_length: int = Field(2048, ge=64, le=262144, description="longest example, in tokens")
    thinking: bool = Field(False, description="train and ask with the model's thinking on")
    offload_embedding: bool | None = Field(None, description="input embedding in CPU memory; null: the plan decides")
    offload_layers: int | None = Field(
        None, ge=0, le=_MOST_COUNTED, description="layers in CPU memory; null: none, or a last resort"
    )


class LoraSection(Section):
    rank: int = Field(16, ge=1, le=512)
    alpha: int = Field(32, ge=1, le=_MOST_COUNTED)
    dropout: float = Field(0.0, ge=0, lt=1)
    target: Literal["minimal", "standard", "full"] | list[str] = "full"

    @field_validator("target")
    @classmethod
    def _names(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str):
            return value
        if not value or any(not re.fullmatch(r"\w+", name) for name in value):
            raise ValueError(f"use {', '.join(LORA_PRESETS)} or a list of module names such as [q_proj, v_proj]")
        if repeated := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} is listed twice")
        if {"embed_tokens", "lm_head"} & set(value):
            raise ValueError("embed_tokens and lm_head would be trained in full and cannot be merged; leave them out")
        return value


class Source(Section):
    path: PathText = Field(min_length=1, description="JSONL, JSON, CSV or Parquet file, or a hub dataset id")
    weight: float = Field(1.0, gt=0, le=100, description="1 = every row once, 0.5 = half of them, 2 = each twice")


class DataSection(Section):
    train: list[Source] = Field(min_length=1)
    eval: PathText | None = Field(None, description="held-out examples for the evaluation loss")
    mode: Literal["direct", "cot", "auto"] = "auto"
    system: str | None = None
    format: Literal["auto", FormatName] = "auto"
    max_overlong: Share = Field(0.0, description="share of examples longer than max_seq_length that may be left out")


class TrainSection(Section):
    method: str = Field("sft", pattern=r"^[a-z][a-z0-9_]*$", description="how to train")
    epochs: float = Field(3, gt=0, le=1000)
    max_steps: int | None = Field(None, ge=1, le=_MOST_STEPS, description="stop after so many optimizer steps")
    effective_batch_size: int = Field(
        16, ge=1, le=_MOST_COUNTED, description="examples per optimizer step; the plan divides it up"
    )
    per_device_train_batch_size: int | None = Field(
        None, ge=1, le=_MOST_COUNTED, description="overrides the plan's choice"
    )
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, le=_MOST_COUNTED, description="overrides the plan's choice"
    )
    packing: bool = True
    row_length: int | None = Field(
        None, ge=64, le=_MOST_COUNTED, description="tokens of a packed row; null: the plan decides"
    )
    learning_rate: float = Field(1e-4, gt=0, lt=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: Share = 0.05
    weight_decay: float = Field(0.01, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0, le=_MOST_COUNTED)
    optim: Literal["adamw_8bit", "adamw_torch"] = "adamw_8bit"
    gradient_checkpointing: Literal["unsloth", True, False] = "unsloth"
    checkpoint_skip_layers: int | None = Field(
        None, ge=0, le=_MOST_COUNTED, description="layers not recomputed; null: the plan decides"
    )
    double_buffer: bool | None = Field(None, description="two staging buffers; null: the plan decides")
    logging_steps: int | None = Field(None, ge=1, le=_MOST_STEPS, description="null: from the number of steps")
    eval_steps: int | None = Field(None, ge=1, le=_MOST_STEPS, description="null: from the number of steps")
    save_steps: int | None = Field(None, ge=1, le=_MOST_STEPS, description="null: from the number of steps")
    save_total_limit: int = Field(2, ge=1, le=_MOST_COUNTED)
    early_stopping_patience: int | None = Field(
        None, ge=1, le=_MOST_COUNTED, description="evaluations without improvement"
    )

    @field_validator("method")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        """Check against the names that the loader passes in, since this layer knows no method."""
        known = (info.context or {}).get("methods", [value])
        if value not in known:
            expected = " or ".join(f"'{name}'" for name in known)
            raise PydanticCustomError("literal_error", "unknown", {"expected": expected})
        return value


class BudgetSection(Section):
    vram_gb: float | None = Field(10, gt=1, le=1024, description="the card as sold; null: what the machine has")
    last_resorts: bool = Field(False, description="layers in CPU memory and a lower rank where nothing else fits")
    price_per_hour: float | None = Field(
        None, ge=0, le=_MOST_COUNTED, description="of the machine; the plan then shows the run's cost"
    )


class EvaluateSection(Section):
    data: PathText = Field(min_length=1)
    kind: KindName = "multiple_choice"
    mode: Literal["direct", "cot"] = Field("direct", description="letters after the prompt, or an argued reply")
    max_items: int | None = Field(None, ge=1, le=_MOST_STEPS)
    permutations: int = Field(1, ge=1, le=24, description="orders of the choices that each question is asked in")
    votes: int = Field(1, ge=1, le=64, description="replies per question in cot mode; the majority answers")
    temperature: float = Field(0.7, gt=0, le=2, description="of several votes; a single reply is greedy")
    top_p: float = Field(0.8, gt=0, le=1, description="of several votes")
    max_new_tokens: int = Field(512, ge=1, le=32768, description="of a reply in cot mode and for generation")
    samples: int | None = Field(
        None, ge=0, le=20, description="prompts answered before and after; null: 3, none where letters answer"
    )

    @property
    def reads_letters(self) -> bool:
        return self.kind == "multiple_choice" and self.mode == "direct"

    @property
    def samples_wanted(self) -> int:
        return self.samples if self.samples is not None else 0 if self.reads_letters else 3

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateSection:
        key, why = misfit(self.kind, self.mode, self.permutations, self.votes)
        if why:
            raise MisfitError(why, key)
        return self


class ExportSection(Section):
    gguf: list[GgufType] = ["q8_0"]
    ollama_name: str | None = Field(None, pattern=NAME)
    require_verdict: bool = Field(True, description="no GGUF of a model that is worse or collapsed")
    lora_gguf: bool = Field(False, description="also the adapter alone, for servers that hold several")
    merged: PathText | None = Field(
        None, min_length=1, description="folder for merged weights; null: in the run's export/"
    )
    merge_base: Literal[MergeBase, "auto"] = Field(
        "dequantised", description="auto: whichever is closer to the adapter, measured"
    )
    license: str | None = Field(None, min_length=1, description="in the GGUF, e.g. apache-2.0; null: the base's")
    languages: list[str] = Field([], description="in the GGUF, e.g. [ja]; empty: the base's")
    parity_questions: int | None = Field(
        None,
        ge=0,
        le=_MOST_COUNTED,
        description="of the verdict's, asked of each GGUF; null: 100 where letters answer, else none",
    )
    num_ctx: int | None = Field(None, ge=256, le=10**7, description="null: max_seq_length and room for an answer")
    temperature: float = Field(0.0, ge=0, le=2)

    @field_validator("gguf")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("the same type is listed twice")
        return value

    @field_validator("license")
    @classmethod
    def _identifier(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(LICENSE, value):
            raise ValueError(f"{value!r} is not the identifier of a licence, such as apache-2.0")
        return value

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: list[str]) -> list[str]:
        if wrong := [one for one in value if not re.fullmatch(LANGUAGE, one)]:
            raise ValueError(f"{', '.join(map(repr, wrong))}: name languages by their codes, such as ja or en")
        return value


class RunSection(Section):
    output_dir: PathText = Field("outputs", min_length=1)
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
    def _sections_fit_together(self) -> Recipe:
        if self.export and self.export.require_verdict and self.evaluate is None:
            what = "export.require_verdict needs an 'evaluate' section (or set require_verdict: false)"
            raise MisfitError(what, "export", "require_verdict")
        if self.model.thinking and self.evaluate and self.evaluate.reads_letters:
            what = "evaluate reads the first token as the answer, and a thinking model begins with a thought"
            raise MisfitError(f"{what}; set evaluate.mode: cot", "evaluate", "mode")
        if self.train.early_stopping_patience and self.data.eval is None:
            what = "nothing can stop early without held-out data: set data.eval, or leave early_stopping_patience out"
            raise MisfitError(what, "train", "early_stopping_patience")
        return self
