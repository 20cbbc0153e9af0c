"""Hugging Face transformers' side of a training comparison: MarianMTModel in a plain loop.

In: prepared pairs, a shape, a number of updates or minutes. Out: one JSON line every few updates: target tokens a second without padding.
Runs in the environment of that peer. The decision to question: torch's fused Adam, and no clipping, as a user would write who
cares for speed; the model is as it comes (it adds norms after, not before, and has no dropout inside the feed-forward block).
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from ids import BOS, EOS, PAD, Pair, epoch, read_pairs
from transformers import MarianConfig, MarianMTModel


def build(shape: dict[str, float]) -> MarianMTModel:
    """The model of the given sizes with all embeddings tied."""
    names = ("vocabulary", "width", "layers", "heads", "feed_forward")
    vocabulary, width, layers, heads, feed_forward = (int(shape[name]) for name in names)
    config = MarianConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=feed_forward,
        decoder_ffn_dim=feed_forward,
        dropout=shape["dropout"],
        attention_dropout=shape["dropout"],
        activation_dropout=0.0,
        activation_function="relu",
        max_position_embeddings=256,
        scale_embedding=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
    )
    return MarianMTModel(config)


def train(words: argparse.Namespace, model: MarianMTModel) -> None:
    """Update until the steps or the minutes are over, telling how fast; at each of the minutes the model is saved."""
    draw, pairs, device = random.Random(1), read_pairs(words.pairs, "train"), words.device
    model.to(device)
    call = torch.compile(model, dynamic=True) if words.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: inverse_root(step + 1, words.warmup) if words.warmup else 1.0)
    entropy = torch.nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=words.shape["label_smoothing"])
    step = tokens = 0
    left = list(words.minutes)
    start = begin = time.perf_counter()
    for source, target in forever(pairs, budget=int(words.shape["batch_tokens"]), draw=draw):
        previous = torch.cat([torch.full((len(target), 1), PAD), target[:, :-1]], 1).to(device)
        real, source, target = int(target.ne(PAD).sum()), source.to(device), target.to(device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=words.precision == "bf16"):
            mask = source.ne(PAD).long()
            logits = call(input_ids=source, attention_mask=mask, decoder_input_ids=previous, use_cache=False).logits
            loss = entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        optimizer.step()
        rate.step()
        step, tokens = step + 1, tokens + real
        if step % words.every == 0:
            known = {"step": step, "loss": float(loss)}  # waits for a GPU
            print(json.dumps({**known, "tokens_per_second": tokens / (time.perf_counter() - begin)}), flush=True)
            tokens, begin = 0, time.perf_counter()
        if left and time.perf_counter() - start >= 60 * left[0]:
            model.save_pretrained(words.save / f"{left.pop(0):g}")
        if step == words.steps or (words.minutes and not left):
            return


def inverse_root(step: int, warmup: int) -> float:
    """The share of the learning rate: up to 1 over the warm-up, then down with the root of the steps."""
    return min(step / warmup, (warmup / step) ** 0.5)


def forever(pairs: Sequence[Pair], *, budget: int, draw: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from epoch(pairs, budget=budget, draw=draw)


def main() -> None:
    """Train and tell how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--shape", type=json.loads, required=True)
    parser.add_argument("--steps", type=int, help="updates (default: as many as fit into --minutes)")
    parser.add_argument("--minutes", type=float, nargs="*", default=[], help="save the model into SAVE/MINUTES then, and end with the last")
    parser.add_argument("--warmup", type=int, default=0, help="updates until the full learning rate, which then falls (0: it stays)")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the whole model")
    parser.add_argument("--save", type=Path, help="where models are written")
    words = parser.parse_args()
    torch.manual_seed(1)
    model = build(words.shape).train()
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "precision": words.precision}), flush=True)
    train(words, model)


if __name__ == "__main__":
    main()
