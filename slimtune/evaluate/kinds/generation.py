"""Generation: free replies, compared with the reference answers by exact match, chrF and BLEU. Its items are prompts."""

import re
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from slimtune.core.units import plural
from slimtune.data.text import normalised
from slimtune.evaluate.judge import statistics
from slimtune.evaluate.judge.text import bounds, excerpt, percent
from slimtune.evaluate.kinds.kind import Answer, Answers, Change, Figures, Item, Kind, Metric, Settings, TableRow
from slimtune.evaluate.targets.target import Prompt, Target

# Without spaces between its words, a text is compared character by character.
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f]")
_EXCERPT, _SHOWN_EXCERPT, _TEXT_LENGTH = 200, 40, 1500


def closeness(text: str, reference: str) -> dict[str, Any]:
    """{"exact", "chrf"}: whether both are equal but for width and white space, and sacrebleu's sentence chrF, 0 to 100.

    Source: M. Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015.
    """
    from sacrebleu.metrics import CHRF

    plain = [" ".join(normalised(one, "NFKC").split()) for one in (text, reference)]
    return {"exact": plain[0] == plain[1], "chrf": round(CHRF().sentence_score(text, [reference]).score, 4)}


def commonest(texts: Sequence[str]) -> dict[str, Any]:
    """The text that occurs most often, empty ones aside: an excerpt, its count and its share of all."""
    counts = Counter(text.strip() for text in texts if text.strip())
    text, number = counts.most_common(1)[0] if counts else ("", 0)
    return {"text": text[:_EXCERPT], "count": number, "share": number / len(texts)}


def mean_chrf(answers: Answers) -> float:
    return fmean(answer["chrf"] for answer in answers)


def corpus_score(name: str, answers: Answers) -> tuple[float, str]:
    """Sacrebleu's score of all replies together, and its signature. name: "chrf" or "bleu".

    BLEU is by characters where references are Chinese, Japanese or Korean.
    """
    from sacrebleu.metrics import BLEU, CHRF

    characters = any(_CJK.search(answer["reference"]) for answer in answers)
    metric = CHRF() if name == "chrf" else BLEU(tokenize="char" if characters else "13a", force=True)
    texts, references = [answer["text"] for answer in answers], [answer["reference"] for answer in answers]
    score = metric.corpus_score(texts, [references]).score
    return float(score), str(metric.get_signature())


class Generation(Kind):
    """An answer has `text`, `reference`, `chrf` (0 to 100) and, where known, `exact` and `status`."""

    name = "generation"
    noun, unit = "prompt", "chrF points"
    needed = ("text", "reference", "chrf")
    same = ("reference", "different references", "evaluate them on the same, complete file")
    score, score_name = "chrf", "chrF "
    metrics = (
        Metric("chrf", "chrF, mean of the replies", mean_chrf, "{:.1f}".format),
        Metric("corpus_chrf", "chrF of all text", lambda answers: corpus_score("chrf", answers)[0], "{:.1f}".format),
        Metric("bleu", "BLEU of all text", lambda answers: corpus_score("bleu", answers)[0], "{:.1f}".format),
    )

    def ask(self, target: Target, batch: Sequence[Item], settings: Settings) -> list[Answer]:
        replies = target.generate([Prompt(item.prompt) for item in batch], settings.sampling(self.room(settings)))
        return [
            {
                "prompt_sha256": None,
                "text": reply.text,
                "reference": item.reference,
                "status": "error" if reply.error else "truncated" if reply.truncated else "answered",
                "tokens": reply.tokens,
                **closeness(reply.text, item.reference),
                **({"error": reply.error} if reply.error else {}),
            }
            for item, (reply,) in zip(batch, replies, strict=True)
        ]

    def figures(self, answers: Answers, labels: Sequence[str]) -> Figures:
        """exact, exact_interval, correct: share of replies that match, its Wilson interval (95 %), and their number.

        statuses, empty, unusable: replies by status; those that ended without a word; all that are cut off, empty or
        missing. commonest: the reply given most often, empty ones aside. *_signature: how sacrebleu computed a score.
        """
        exact, n = sum(bool(answer.get("exact")) for answer in answers), len(answers)
        counts = Counter(map(_status, answers))
        empty = sum(_status(answer) == "answered" and not answer["text"].strip() for answer in answers)
        return {
            "exact": exact / n,
            "exact_interval": list(statistics.wilson(exact, n)),
            "correct": exact,
            "chrf_signature": corpus_score("chrf", answers[:1])[1],
            "bleu_signature": corpus_score("bleu", answers)[1],
            "statuses": {name: counts[name] for name in ("answered", "truncated", "error")},
            "empty": empty,
            "unusable": counts["truncated"] + counts["error"] + empty,
            "commonest": commonest([answer["text"] for answer in answers]),
        }

    def table(self, frame: dict[str, Any], sides: Sequence[Figures]) -> list[TableRow]:
        n = frame["n"]
        rows: list[TableRow] = [
            *self.metric_rows(sides),
            ("exact match", *(f"{percent(side['exact'])} ({bounds(side['exact_interval'])})" for side in sides)),
            ("exact / n", *(f"{side['correct']} / {n}" for side in sides)),
            ("commonest reply", *(f"{side['commonest']['count']} / {n}" for side in sides)),
        ]
        if any(side["unusable"] for side in sides):
            rows.append(("cut off, empty or failed", *(f"{side['unusable']} / {n}" for side in sides)))
        return rows

    def share(self, figures: Figures) -> tuple[str, float, list[float]] | None:
        return "Exact matches", figures["exact"], figures["exact_interval"]

    def change(self, reference: Answers, contender: Answers) -> Change:
        pairs = list(zip(reference, contender, strict=True))
        right = [(bool(one.get("exact")), bool(other.get("exact"))) for one, other in pairs]
        return Change([other["chrf"] - one["chrf"] for one, other in pairs], right=right)

    def judged(self, base: Answers, tuned: Answers, result: dict[str, Any]) -> dict[str, Any]:
        reply = result["tuned"]["commonest"]
        reference = commonest([answer["reference"] for answer in base])
        return {
            "collapse": {
                "text": reply["text"],
                "share": reply["share"],
                "reference_share": reference["share"],
                "base_share": result["base"]["commonest"]["share"],
                "collapsed": result["n"] >= statistics.FEWEST_PAIRS
                and reply["share"] >= statistics.COLLAPSE_SHARE
                and reply["share"] - reference["share"] >= statistics.COLLAPSE_EXCESS,
            }
        }

    def failure(self, result: dict[str, Any]) -> tuple[str, str]:
        tuned, n = result["tuned"], result["n"]
        if result["collapse"]["collapsed"]:
            reply = " ".join(tuned["commonest"]["text"].split())
            shown = reply if len(reply) <= _SHOWN_EXCERPT else f"{reply[:_SHOWN_EXCERPT]}…"
            return "collapsed", f'"{shown}" is the reply to {tuned["commonest"]["count"]} of {plural(n, "prompt")};'
        if tuned["unusable"] >= statistics.LOW_ANSWERED * n:
            return "format failure", f"{tuned['unusable']} of {n} replies are {_unusable(tuned)};"
        return "", ""

    def evidence(self, result: dict[str, Any]) -> list[str]:
        return [f"exact match {percent(result['base']['exact'])} → {percent(result['tuned']['exact'])}"]

    def caveats(self, result: dict[str, Any]) -> list[str]:
        base, tuned, n = result["base"], result["tuned"], result["n"]
        said = []
        if result["collapse"]["collapsed"] and base["commonest"]["share"] >= statistics.COLLAPSE_SHARE:
            said.append(f"the base model also gives one reply to {base['commonest']['count']} of {n}")
        if tuned["unusable"] and result["verdict"] != "format failure":
            said.append(f"{tuned['unusable']} of {n} replies are {_unusable(tuned)}")
        if base["unusable"]:
            said.append(f"{base['unusable']} of the base model's replies are {_unusable(base)}")
        return said

    def spread(self, answers: Answers) -> float:
        scores = [float(answer["chrf"]) for answer in answers]
        return max(scores) - min(scores)

    def told(self, answer: Answer) -> dict[str, Any]:
        text = {"text": excerpt(answer["text"], _TEXT_LENGTH)} if answer["text"] else {}
        return {**text, "chrf": answer["chrf"], "exact": bool(answer.get("exact"))}

    def in_a_word(self, told: dict[str, Any]) -> str:
        return f"chrF {told['chrf']:.0f}" + (", exact" if told["exact"] else "")


def _status(answer: Answer) -> str:
    return answer.get("status") or "answered"


def _unusable(side: Figures) -> str:
    """ "cut off, empty or failed (6 cut off, 4 empty)"."""
    numbers = {"cut off": side["statuses"]["truncated"], "empty": side["empty"], "failed": side["statuses"]["error"]}
    told = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return f"cut off, empty or failed ({told})"
