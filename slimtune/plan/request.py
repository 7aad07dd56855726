"""What a plan is made from: the recipe's sections, the cost of the method, the lengths of the examples. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.models import families
from slimtune.models.shapes import ModelShape
from slimtune.plan.lengths import Lengths
from slimtune.recipe.schema import BudgetSection, LoraSection, ModelSection, TrainSection


@dataclass(frozen=True)
class StepCost:
    """What a training step of a method asks for beyond one forward and backward pass over each example.

    sequences: rows of the model's batch that one example takes, padded to the same length: 2 for a chosen and a rejected
    reply. extra_forwards: passes without gradients over the same tokens: 1 for a reference model's log-probabilities.
    packs: whether several examples can share a row.
    """

    sequences: int = 1
    extra_forwards: float = 0.0
    packs: bool = True


@dataclass(frozen=True)
class PlanRequest:
    """The recipe's sections that a plan follows, and what a step of its method costs.

    max_overlong: share of the examples that may be left out because they are longer than max_seq_length.
    repeats: how often an epoch reads the examples that it reads most.
    """

    model: ModelSection
    lora: LoraSection
    train: TrainSection
    budget: BudgetSection
    seed: int
    report_to: tuple[str, ...] = ()
    max_overlong: float = 0.0
    repeats: float = 1.0
    cost: StepCost = StepCost()

    def targets(self, shape: ModelShape) -> tuple[str, ...]:
        """The linears that get an adapter: a preset of the model's family, or those that are named."""
        wanted = self.lora.target
        return families.get(shape.family).lora_targets[wanted] if isinstance(wanted, str) else tuple(wanted)

    @property
    def longest_example(self) -> int:
        """Places of the longest example that is trained on, all its sequences together."""
        return self.model.max_seq_length * self.cost.sequences


@dataclass(frozen=True)
class Data:
    """Lengths in tokens. held_out: of the examples for the evaluation loss, or None. prompts: of the questions."""

    train: Lengths
    held_out: Lengths | None = None
    prompts: Sequence[int] = ()

    def kept(self, limit: int) -> list[int]:
        """The training examples of at most `limit` tokens; where none is, one of that length."""
        return [count for count in self.train.tokens if count <= limit] or [limit]

    def longest(self, limit: int) -> int:
        """Of everything that passes through the model, as far as it is not left out."""
        held_out = self.held_out.tokens if self.held_out else ()
        return max(count for count in (*self.kept(limit), *held_out) if count <= limit)
