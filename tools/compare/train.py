#!/usr/bin/env python3
"""Trains the plain model of configs/fashion_mnist_nano.toml in PyTorch, by the same recipe.

The model, its initial values' distributions, augmentation, loss, optimizer, schedule and average
are those that adavit's documentation states; random numbers are PyTorch's own. As adavit does, it
keeps the epoch that does best on the held-out images, and measures that one on the test images.
"""

import argparse
import copy
import gzip
import json
import math
import random
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

EMBED_DIM, DEPTH, HEADS = 64, 4, 4
CHANNELS, STRIDES = (16, 32, 64), (1, 2, 2)
"""Of the transformer, and of the stem's 3x3 convolutions, as in the preset nano_conv_patch4_28."""

DEFAULTS: dict[str, Any] = {
    "warmup_epochs": 1.0,
    "min_lr_factor": 0.01,
    "label_smoothing": 0.1,
    "ema_decay": 0.99,
}
"""What adavit takes where the [dense] table of a configuration says nothing."""


class Stem(nn.Module):
    """3x3 convolutions with a GELU after each, then a 1x1 to the model's width."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        widths = (1, *CHANNELS)
        sizes = zip(widths, widths[1:], STRIDES, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in sizes)
        self.proj = nn.Conv2d(CHANNELS[-1], embed_dim, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            xs = F.gelu(conv(xs))
        return self.proj(xs).flatten(2).transpose(1, 2)


def build_model() -> VisionTransformer:
    """The preset nano_conv_patch4_28, with its initial values."""
    model = VisionTransformer(
        img_size=28,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=EMBED_DIM,
        depth=DEPTH,
        num_heads=HEADS,
    )
    model.patch_embed = Stem(EMBED_DIM)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if name.endswith("qkv"):
                for part in module.weight.data.chunk(3):
                    nn.init.xavier_uniform_(part)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for token in (model.pos_embed, model.cls_token):
        nn.init.trunc_normal_(token, std=0.02, a=-0.04, b=0.04)
    return model


def read(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as bytes, and labels."""
    images = gzip.open(folder / f"{part}-images-idx3-ubyte.gz").read()
    labels = gzip.open(folder / f"{part}-labels-idx1-ubyte.gz").read()
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28).copy()
    return torch.from_numpy(pixels), torch.from_numpy(
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    )


def varied(images: torch.Tensor, padding: int) -> torch.Tensor:
    """A random crop of each padded image, half of them mirrored."""
    n, side = len(images), images.shape[-1]
    padded = F.pad(images, (padding,) * 4)
    rows = torch.arange(side) + torch.randint(2 * padding + 1, (n, 1))
    columns = torch.arange(side) + torch.randint(2 * padding + 1, (n, 1))
    mirrored = torch.rand(n, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def erase(images: torch.Tensor, probability: float) -> None:
    """Random erasing of square images of one channel by uniform noise, as adavit does it."""
    side = images.shape[-1]
    for image in images:
        if random.random() >= probability:
            continue
        for _ in range(10):
            area = random.uniform(0.02, 1 / 3) * side * side
            aspect = math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 1 <= rows <= side and 1 <= columns <= side:
                top, left = random.randint(0, side - rows), random.randint(0, side - columns)
                image[top : top + rows, left : left + columns].random_(256)
                break


def evaluate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose label has the highest logit."""
    with torch.inference_mode():
        right = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(images.split(500), labels.split(500), strict=True)
        )
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text())
    if "model" in config:
        parser.error(f"{arguments.config}: expected no [model], found {config['model']}")
    stage = {**DEFAULTS, **config["dense"]}
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    random.seed(arguments.seed)

    images, labels = read(arguments.data_dir, "train")
    order = torch.randperm(len(images))
    held = round(len(images) * config["held_out"])
    held_out, train = order[:held], order[held:]
    mean, std = images.float().mean() / 255, (images.float() / 255).std()

    def normal(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.float() / 255 - mean) / std).unsqueeze(1)

    model = build_model()
    average = copy.deepcopy(model)
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": 0.05},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name in ("pos_embed", "cls_token")
        groups[plain]["params"].append(parameter)
    lr = stage.get("optimizer", {}).get("lr", 2e-3)
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8)

    batch = config["batch_size"]
    per_epoch = math.ceil(len(train) / batch)
    total, warmup = stage["epochs"] * per_epoch, int(stage["warmup_epochs"] * per_epoch)
    best, best_weights = -1.0, model.state_dict()
    start, step = time.perf_counter(), 0
    for epoch in range(stage["epochs"]):
        model.train()
        for chosen in train[torch.randperm(len(train))].split(batch):
            low = stage["min_lr_factor"]
            factor = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * step / total))
            if step < warmup:
                factor = 0.01 + 0.99 * step / warmup
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            pixels = varied(images[chosen], config["augment"]["crop_padding"])
            erase(pixels, config["augment"].get("random_erasing", 0.0))
            logits = model(normal(pixels))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=stage["label_smoothing"])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            weight = 1 - min(stage["ema_decay"], (1 + step) / (10 + step))
            with torch.no_grad():
                for mean_value, value in zip(average.parameters(), model.parameters(), strict=True):
                    mean_value.lerp_(value, weight)
        found = evaluate(average.eval(), normal(images[held_out]), labels[held_out])
        if found > best:
            best, best_weights = found, copy.deepcopy(average.state_dict())
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: held-out top-1 {found:.4f}, {seconds:.0f} s", flush=True)

    average.load_state_dict(best_weights)
    test_images, test_labels = read(arguments.data_dir, "t10k")
    result = {
        "torch": torch.__version__,
        "seed": arguments.seed,
        "epochs": stage["epochs"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_top1": best,
        "top1": evaluate(average.eval(), normal(test_images), test_labels),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
