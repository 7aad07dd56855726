"""What the rounds of benchmarks/evaluate.py say: ratios, answers compared, the table. Plain data, no torch.

Contenders: "slimtune"; "lm_eval", and "lm_eval_requests" for what it spends inside its log-likelihood requests alone;
"unshared", Slimtune computing each order of the choices from its first token.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

OURS, THEIRS, THEIR_REQUESTS, UNSHARED = "slimtune", "lm_eval", "lm_eval_requests", "unshared"
GOAL = 2.0
"""How many times the harness's questions a second Slimtune wants to answer."""

SPELLINGS = "other spellings of the letters"
ROUNDING = "rounding"
UNEXPLAINED = "no known reason"

_ROUNDING_NATS = 0.05
"""A lead below this is within what bfloat16 leaves of a logit (8 bits: 0.03 of a logit of 8) in differently padded batches."""

Round = Mapping[str, float]


def speeds(rounds: Sequence[Round], questions: int) -> dict[str, float]:
    """Questions a second of each contender, from the median of its seconds."""
    return {name: round(questions / statistics.median(one[name] for one in rounds), 3) for name in rounds[0] if rounds}


def ratios(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """How many times Slimtune's seconds the others took: of each round, so that what else a machine does falls on both."""
    found = {}
    for name in rounds[0]:
        if name != OURS:
            each = [one[name] / one[OURS] for one in rounds]
            found[name] = {
                "median": round(statistics.median(each), 3),
                "lowest": round(min(each), 3),
                "highest": round(max(each), 3),
            }
    return found


def accuracy(answers: Mapping[str, str], gold: Mapping[str, str]) -> float:
    """Share of the prompts that are answered rightly."""
    return round(sum(answers[key] == right for key, right in gold.items()) / len(gold), 6)


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Keys of the prompts that were answered differently, or by one alone."""
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def explain(ours: str, theirs: str, looked_at: Mapping[str, Any]) -> str:
    """Why the harness's answer is another one: SPELLINGS, ROUNDING or UNEXPLAINED.

    looked_at: what `evaluate_lm_eval.explain` found, with the harness's own model and a softmax in float32:
    one_spelling and all_spellings, the label that is likeliest by its own token alone and by every token that spells it,
    and the latter's lead in nats.
    """
    if looked_at["all_spellings"] == ours and looked_at["one_spelling"] == theirs:
        return SPELLINGS
    if looked_at["all_spellings"] == ours or looked_at["lead"] < _ROUNDING_NATS:
        return ROUNDING
    return UNEXPLAINED


def goal_met(case: Mapping[str, Any]) -> bool:
    return bool(case["ratios"][THEIRS]["median"] >= GOAL)


def table(report: Mapping[str, Any]) -> str:
    """A line a case: questions a second, ratios, accuracy, and under it whose answers differ."""
    lines = [
        f"{'':34}{'questions/s':>20}   {'times as fast as':^32}",
        f"{'':34}{'Slimtune':>10}{'lm_eval':>10}{'lm_eval':>11}{'requests':>10}{'unshared':>10}  {'goal':9}accuracy",
    ]
    for model in report["models"]:
        lines.append(f"{model['name']} ({model['parameters'] / 1e6:,.1f} M parameters)")
        for case in model["cases"]:
            lines += _lines(case)
    return "\n".join(lines)


def _lines(case: Mapping[str, Any]) -> list[str]:
    speed, goal = case["questions_per_second"], "met" if goal_met(case) else "not met"
    times = [case["ratios"].get(name) for name in (THEIRS, THEIR_REQUESTS, UNSHARED)]
    told = "".join(
        f"{one['median']:>{width}.2f}" if one else f"{'-':>{width}}"
        for one, width in zip(times, (11, 10, 10), strict=True)
    )
    right = " and ".join(f"{case['accuracy'][name]:.3f}" for name in (OURS, THEIRS))
    lines = [f"  {case['name']:32}{speed[OURS]:>10.2f}{speed[THEIRS]:>10.2f}{told}  {goal:9}{right}"]
    counts = Counter(one["why"] for one in case["differing"])
    if counts:
        causes = ", ".join(f"{count} for {why}" for why, count in counts.items())
        lines.append(f"    of {case['prompts']} prompts answered otherwise: {causes}")
    return lines


def problems(report: Mapping[str, Any]) -> list[str]:
    """What makes a comparison void: other conditions, other prompts, answers that differ for no known reason."""
    found = []
    for model in report["models"]:
        ours, theirs = model["conditions"][OURS], model["conditions"][THEIRS]
        if ours != theirs:
            found.append(f"{model['name']}: other conditions: Slimtune {ours}, lm_eval {theirs}")
        for case in model["cases"]:
            where = f"{model['name']}, {case['name']}"
            if case["other_prompts"]:
                found.append(f"{where}: other token ids for {', '.join(case['other_prompts'])}")
            found += [
                f"{where}: {one['key']}: {one['slimtune']}, by lm_eval {one['lm_eval']}, for no known reason"
                for one in case["differing"]
                if one["why"] == UNEXPLAINED
            ]
    return found
