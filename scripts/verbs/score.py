"""`data.py score`: what a model says of each row."""

import argparse
import json
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", help="data file of any kind that training reads, or world:TASK/split")
    parser.add_argument("--model", help="a base: a Hugging Face folder, a .gguf file, or: base")
    parser.add_argument("--adapter", metavar="DIR", help="a PEFT folder on --model")
    parser.add_argument("--run", dest="trained", metavar="RUN", help="a finished training run, in place of --model")
    parser.add_argument("--template", help="shipped chat template or path of a .jinja (default: the tokenizer's own)")
    parser.add_argument("--metric", default="tasks.exact_match", help="whether an answer is right: tasks.numeric, m:f")
    parser.add_argument("--samples", type=int, default=0, metavar="K", help="also the share of K samples that is right")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default 1)")
    parser.add_argument("--max-new-tokens", type=int, default=0, help="of an answer (default: as the longest in FILE)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default 0)")
    parser.add_argument("--quant", default="none", help="with --model: its matrices in nf4, nf4-dq, int4, ..")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights in memory")
    parser.add_argument("--out", type=Path, metavar="FILE.parquet", help="default: FILE.scores.parquet, beside FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")


def run(arguments: argparse.Namespace) -> None:
    """Writes for each row how likely its answer is, whether the model gives it already, and what it would teach."""
    from scripts import cli

    of_run = bool(arguments.trained)  # `run` is the verb itself
    cli.refuse(
        {
            "give --model DIR, or --run RUN": of_run == bool(arguments.model),
            "--adapter goes with --model; a --run has its own": of_run and arguments.adapter,
            "--quant goes with --model; a --run has its own": of_run and arguments.quant != "none",
            "--out must end in .parquet": arguments.out is not None and arguments.out.suffix != ".parquet",
        }
    )
    from ftjax import experiment, inference, row_scores
    from ftjax.data import files, scores, scores_told
    from scripts.verbs import _progress

    experiment.use_compilation_cache()
    if of_run:
        made = inference.made_by(arguments.trained)
        made = made._replace(template=arguments.template or made.template)
    else:
        quant = inference.Quant(arguments.quant)
        made = inference.Made(arguments.model, arguments.adapter, arguments.template, quant)
    names = row_scores.Settings._fields
    settings = row_scores.Settings(**{name: getattr(arguments, name) for name in names})
    out = arguments.out or scores.place(arguments.file)
    with _progress.counted("scoring", quiet=arguments.json) as tell:
        found = row_scores.score_file(arguments.file, made, settings, out, dtype=arguments.dtype, tell=tell)
    picture = out.with_suffix(".svg")
    files.write_over(picture, [scores_told.picture(found)])
    told = scores_told.summary(found)
    if arguments.json:
        print(json.dumps({"file": arguments.file, "scores": str(out), "summary": told, "manifest": found.manifest}))
        return
    print("\n".join(told))
    print(f"written: {out}, {picture}")
