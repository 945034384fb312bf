"""Measures published judges on published votes: python scripts/repro/judges.py --data FOLDER

FOLDER holds pandalm_human_pref (PandaLM's test set: three people's votes on each pair, and two judges) and
qlora_judge_ratings (GPT-4 on QLoRA's Guanaco and on Vicuna, each pair of systems in both orders).
"""

from collections.abc import Sequence
import itertools
import json
from pathlib import Path
import sys
from typing import Any

from ftjax.data import files, pairs
from ftjax.evals import judge, judge_report, statistics
from ftjax.runs import report
from scripts import cli

PANDALM = {"PandaLM-7B": ("pandalm7b_judge", "pandalm_result"), "GPT-3.5": ("gpt35_judge", "gpt_result")}
VOTES = {"0": "tie", "1": "a", "2": "b", "Tie": "tie"}
SYSTEMS = {"guanaco-7b": "7b-guanaco", "guanaco-65b": "65b-guanaco", "vicuna-13b": "answer-vicuna-13b"}
TERMS = {"level": 0.95, "resamples": 1000, "seed": 0}


def rows(file: Path) -> list[dict[str, Any]]:
    """Returns the rows of a gzipped JSON Lines file."""
    return [json.loads(line) for _, line in files.lines(file)]


def voted(folder: Path) -> list[pairs.Pair]:
    """Returns PandaLM's pairs with the votes of three people."""
    return [
        pairs.Pair(
            prompt=f"{row['instruction']}\n{row['input']}",
            a=str(row["response1"]),
            b=str(row["response2"]),
            reference="",
            human=tuple(VOTES[str(row[f"annotator{number}"])] for number in (1, 2, 3)),
            where=str(row["idx"]),
        )
        for row in rows(folder / "pandalm_human_pref" / "testset_shared.jsonl.gz")
    ]


def pandalm(folder: Path, name: str) -> dict[str, Any]:
    """Returns the report on a judge of PandaLM's pairs, which saw one order only."""
    file, column = PANDALM[name]
    given = {str(r["idx"]): str(r[column]) for r in rows(folder / "pandalm_human_pref" / f"{file}_shared.jsonl.gz")}
    found = voted(folder)
    winners = [VOTES.get(given[pair.where]) for pair in found]  # anything else is no verdict
    return judge_report.report(found, [judge.Judged((one, one), (), one) for one in winners], **TERMS)


def between_people(folder: Path) -> list[float]:
    """Returns Cohen's kappa of annotators 1 and 2, 1 and 3, 2 and 3."""
    votes = list(zip(*(pair.human for pair in voted(folder)), strict=True))
    return [statistics.cohen_kappa(*two, level=0.95).value for two in itertools.combinations(votes, 2)]


def answers(folder: Path, system: str) -> dict[int, str]:
    """Returns a system's answers by question."""
    found = rows(folder / "qlora_judge_ratings" / "answers" / f"{system}.jsonl.gz")
    return {row["question_id"]: row.get("generation_truncated") or row["text"] for row in found}


def scores(folder: Path, first: str, second: str) -> dict[int, int]:
    """Returns GPT-4's class of each question: 1 the first is better, 2 the second, 3 a tie, -1 none."""
    file = folder / "qlora_judge_ratings" / "ratings" / f"{SYSTEMS[first]}-vs-{SYSTEMS[second]}.jsonl.gz"
    return {row["question_id"]: int(row["score"]) for row in rows(file)}


def ordered(folder: Path, a: str, b: str) -> tuple[list[pairs.Pair], list[judge.Judged]]:
    """Returns the questions with the answers of two systems, and GPT-4's verdicts by both orders."""
    one, other, of_a, of_b = scores(folder, a, b), scores(folder, b, a), answers(folder, a), answers(folder, b)
    found, judged = [], []
    for question in sorted(one):
        verdicts = ({1: "a", 2: "b", 3: "tie"}.get(one[question]), {1: "b", 2: "a", 3: "tie"}.get(other[question]))
        found.append(pairs.Pair(str(question), of_a[question], of_b[question], "", (), f"{a} {b} {question}"))
        judged.append(judge.Judged(verdicts, (), judge.of_orders(*verdicts)))
    return found, judged


def guanaco(folder: Path, contests: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the report on GPT-4 over these pairs of systems together."""
    both = [ordered(folder, *contest) for contest in contests]
    return judge_report.report([x for one, _ in both for x in one], [x for _, one in both for x in one], **TERMS)


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds both sets")
    folder = cli.parse(parser, argv).data
    print("kappa of annotators 1-2, 1-3, 2-3:", ", ".join(f"{x:.3f}" for x in between_people(folder)))
    for name in PANDALM:
        found = pandalm(folder, name)
        people = found["human"]
        print(f"\n{name}: {found['unparsable_pairs']} of {found['pairs']} without a verdict")
        for label, key in {"majority": "agreement_with_majority", "a person": "agreement"}.items():
            print(f"  agrees with {label}: {report.share(people[key])}")
        print(f"  a person with another: {report.share(people['between_people'])}")
        print(f"  kappa {people['kappa']['value']:.3f}; longer wins {report.share(found['length']['longer_wins'])}")
        print(f"  win rate of 1: {report.share(found['win_rate'])}, by people {people['win_rate_by_people']:.1%}")
    contests = list(itertools.combinations(SYSTEMS, 2))
    for name, one in {**{f"{a} against {b}": [(a, b)] for a, b in contests}, "all three": contests}.items():
        found = guanaco(folder, one)
        place = found["position"]
        print(f"\nGPT-4 on {name}: win rate {report.share(found['win_rate'])}")
        print("  consistent, first, second, none:", end=" ")
        print(*(f"{place[key]:.1%}" for key in ("consistent", "biased_to_first", "biased_to_second", "unparsable")))
        print(f"  first place preferred {report.share(place['first_preferred'])}; {place['reversals']} reversals")
        print(f"  longer wins {report.share(found['length']['longer_wins'])}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
