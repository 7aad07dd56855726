"""The same run at other micro-batch sizes with no knob turned, beside the plan: what `--plot` draws."""

from slimtune.models.hardware import Hardware
from slimtune.models.shapes import ModelShape
from slimtune.plan import batching, calibration, jobs, search
from slimtune.plan.explain import picture
from slimtune.plan.make import Plan
from slimtune.plan.request import Data, PlanRequest

_TOKENS = (1024, 2048, 4096, 8192)


def bars(request: PlanRequest, data: Data, shape: ModelShape, hardware: Hardware, plan: Plan) -> list[picture.Bar]:
    """The plan's bar first, then the others by size. The plan must be one for a card."""
    assert plan.memory is not None
    assert plan.estimate is not None
    job = jobs.build(request, data, shape, hardware, calibration.current())
    drawn = [
        picture.Bar(
            f"The plan: {plan.micro_batch_tokens:,} tokens",
            plan.memory.items,
            chosen=True,
            remark=f"{_kept(plan)}, {plan.estimate.tokens_per_second:,.0f} tok/s",
        )
    ]
    for tokens in _TOKENS:
        plain = search.evaluate(job, batching.single(tokens), 0, False, True, 0)
        rate = f"all recomputed, {plain.tokens_per_second:,.0f} tok/s"
        drawn.append(picture.Bar(f"{tokens:,} tokens", plain.memory.items, remark=rate))
    return drawn


def _kept(plan: Plan) -> str:
    return f"{plan.checkpoint_skip_layers} layers kept" if plan.checkpoint_skip_layers else "all recomputed"


def subtitle(plan: Plan, card: str) -> str:
    """What the chosen bar is, in a line."""
    parts = [f"Predicted peak on a {card}"]
    if plan.checkpoint_skip_layers:
        parts.append(f"{plan.checkpoint_skip_layers} layers keep their activations")
    if plan.offload_layers:
        parts.append(f"{plan.offload_layers} layers in CPU memory")
    if plan.offload_embedding:
        parts.append("embedding in CPU memory")
    return "; ".join(parts)
