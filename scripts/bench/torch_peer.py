"""Does what `accelerator.py` does with PyTorch, transformers, PEFT and bitsandbytes, on the same shapes.

python scripts/bench/torch_peer.py --shape 8B --quant nf4 --rows 1 16

Needs an environment with these packages and a CUDA device (--device cpu tries it at a small shape). LoRA r 16 on all
linears with adapters in float32, fused AdamW, SDPA attention, activations recomputed a layer at a time; nf4 is double
quantised. --compile compiles the layers.
"""

import json
from pathlib import Path
import statistics
import sys
import time

from scripts import cli
from scripts.bench import step, synthetic

PROMPT = 32


def flags(argv):
    """Returns the flags."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shape", choices=step.SHAPES, default="1B")
    parser.add_argument("--quant", choices=("none", "nf4"), default="nf4")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-checkpoint", action="store_true", help="keep all activations")
    parser.add_argument("--out", type=Path, help="append the result as a JSON line")
    return cli.parse(parser, argv)


def made(args):
    """Returns the model, random, with its linears in four bits where that is asked for."""
    import torch
    import transformers

    facts = synthetic.facts(*step.SHAPES[args.shape])
    config = transformers.LlamaConfig(
        **{k: v for k, v in facts.items() if k not in ("architectures", "dtype", "torch_dtype")}
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(args.device):
        model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    if args.quant == "nf4":
        import bitsandbytes as bnb

        for layer in model.model.layers:
            for parent in (layer.self_attn, layer.mlp):
                for name, old in list(parent.named_children()):
                    if not isinstance(old, torch.nn.Linear):
                        continue
                    new = bnb.nn.Linear4bit(
                        old.in_features, old.out_features, bias=False, compute_dtype=torch.bfloat16,
                        compress_statistics=True, quant_type="nf4", device="meta",
                    )  # fmt: skip
                    weight = bnb.nn.Params4bit(
                        old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=new
                    )
                    new.weight = weight.to(args.device)
                    setattr(parent, name, new)
                    del old, weight
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def synchronise(args):
    """Waits for the device."""
    import torch

    if args.device == "cuda":
        torch.cuda.synchronize()


def train(args, model):
    """Returns the figures of LoRA steps."""
    import peft
    import torch

    settings = peft.LoraConfig(
        r=step.RANK, lora_alpha=step.ALPHA, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0
    )
    model = peft.get_peft_model(model, settings)  # adapters in float32
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    if not args.no_checkpoint:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if args.compile:
        for layer in model.base_model.model.model.layers:
            layer.compile()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=step.RATE, weight_decay=0.0, fused=args.device == "cuda")
    ids = torch.randint(0, model.config.vocab_size, (1, args.tokens), device=args.device)
    times, losses = [], []
    for _ in range(args.steps + 2):
        synchronise(args)
        start = time.perf_counter()
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        synchronise(args)
        times.append(time.perf_counter() - start)
    second = statistics.median(times[2:])
    peak = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else None
    model.gradient_checkpointing_disable()
    found = {"tokens": args.tokens, "loss": [losses[0], losses[-1]], "step_seconds": second, "first_seconds": times[0]}
    return found | {"tokens_per_second": args.tokens / second, "peak_gib": peak}


def decode(args, model, rows):
    """Returns the figures of decoding a batch."""
    import torch

    ids = torch.randint(0, model.config.vocab_size, (rows, PROMPT), device=args.device)
    settings = {"do_sample": False, "max_new_tokens": args.new, "min_new_tokens": args.new, "pad_token_id": 0}
    times = []
    with torch.inference_mode():
        for _ in range(3):
            synchronise(args)
            start = time.perf_counter()
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
            synchronise(args)
            times.append(time.perf_counter() - start)
    spent = min(times[1:])
    return {"rows": rows, "ms_a_token": spent / args.new * 1e3, "tokens_per_second": rows * args.new / spent}


def main(argv):
    """Prints the figures and returns the exit status."""
    args = flags(argv)
    import torch

    model = made(args)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    found = {"device": name, "shape": args.shape, "format": args.quant, "torch": torch.__version__}
    model.eval()
    found["decode"] = [decode(args, model, rows) for rows in args.rows]
    print(json.dumps(found), flush=True)
    if args.tokens:
        found["train"] = train(args, model)
        print(json.dumps(found["train"]), flush=True)
    cli.append(args.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
