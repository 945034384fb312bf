"""Makes the embedded base model: corpus -> tokenizer -> full training from random weights -> Hugging Face folder, card.

  python scripts/make_base.py --out runs/base                # an hour of 2 cores; the same command resumes
  python scripts/make_base.py --out runs/base --corpus-only  # the corpus and its hash, in half a minute
  python scripts/make_base.py --out runs/half --width 128 --layers 2  # a smaller one, for configs/sweeps/sizes.py
  cp runs/base/base/* ftjax/assets/base/                     # when the card (runs/base/base/README.md) is good

The corpus is the same byte for byte for a seed. How many steps fit into --minutes is decided once, from a measured
step; preparing the corpus and measuring the model for the card take a few minutes more.
"""

import argparse
from pathlib import Path
import sys

from ftjax import errors
from ftjax.assets import world

SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}
SCHEDULE = {"schedule": "wsd", "learning_rate": 3e-3, "end_ratio": 0.0, "decay_share": 0.4}
OPTIMIZER = {
    "name": "adamw",
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "momentum": 0.95,
    "weight_decay": 0.1,
    "decay": r"blocks\..*_proj",
    "clip_norm": 1.0,
    "lora_plus_ratio": 1.0,
}


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="working folder; the model appears in its base/")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus, the weights and the order of rows")
    parser.add_argument("--minutes", type=float, default=50, help="of training")
    parser.add_argument("--width", type=int, default=SHAPE["hidden_size"], help="of the model, a multiple of 64")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="of the model")
    parser.add_argument("--rows", type=int, default=world.ROWS, help="of the corpus; fewer only to try the program")
    parser.add_argument("--eval-size", type=int, default=300, help="held-out prompts of each task set for the card")
    parser.add_argument("--corpus-only", action="store_true", help="stop after corpus.jsonl and its hash")
    parser.add_argument("--debug", action="store_true", help="show the stack of an error")
    return parser.parse_args()


def shape(width: int, layers: int) -> dict[str, object]:
    """Returns the config.json of a model of this size, in the proportions of the embedded one."""
    if width < 64 or width % 64 or layers < 1:
        raise errors.UserError(f"--width {width} --layers {layers}: a width is a multiple of 64, and there is a layer")
    heads = width // 64
    parts = {"num_attention_heads": heads, "num_key_value_heads": max(heads // 2, 1), "num_hidden_layers": layers}
    return SHAPE | parts | {"hidden_size": width, "intermediate_size": width * 5 // 2}


def make(args: argparse.Namespace) -> None:
    """Runs what is not there yet, stage by stage."""
    from ftjax.assets import measure, pretrain

    args.out.mkdir(parents=True, exist_ok=True)
    corpus = pretrain.write_corpus(args.out, seed=args.seed, rows=args.rows)
    print(f"{args.out / 'corpus.jsonl'}: {corpus['rows']:,} rows, {corpus['bytes']:,} bytes, sha256 {corpus['sha256']}")
    if args.corpus_only:
        return
    pretrain.write_model_folder(args.out, seed=args.seed, shape=shape(args.width, args.layers))
    trained = pretrain.train(
        args.out,
        minutes=args.minutes,
        seed=args.seed,
        batch_size=10,
        length=384,
        warmup_share=0.03,
        schedule=SCHEDULE,
        optimizer_settings=OPTIMIZER,
        save_seconds=150,
    )
    measure.write_card(
        args.out / "base",
        corpus=corpus,
        trained=trained,
        size=args.eval_size,
        command=f"python scripts/make_base.py --out {args.out} --seed {args.seed} --minutes {args.minutes:g} "
        f"--width {args.width} --layers {args.layers}",
    )


def main() -> None:
    """Exits with 2 and one line where the user can mend it."""
    args = arguments()
    try:
        make(args)
    except errors.UserError as error:
        if args.debug:
            raise
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
