"""Loads weights that timm and transformers write, and compares adavit's logits with PyTorch's.

    python tools/compare/weights.py target/release/adavit

Random weights, redrawn wide. Fails where a logit is off by more than 2e-5 of the largest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils import logging

sys.path.append(str(Path(__file__).parent.parent / "record"))
import record  # noqa: E402

TOLERANCE = 2e-5

MODELS = [
    ("timm", "deit_small_patch16_224", "safetensors"),
    ("timm", "deit_small_distilled_patch16_224", "pth"),
    ("timm", "deit_base_patch16_384", "safetensors"),
    ("timm", "vit_base_patch16_224", "safetensors"),
    ("transformers", "vit", "folder"),
]


def compare(adavit, folder, library, name, form):
    """Returns the standard deviation of the logits and the largest difference of each path, over
    the largest logit."""
    torch.manual_seed(0)
    model = record.build(library, name, {})
    record.redraw(model, seed=0)
    config = record.config_of(library, model)
    size = config["img_size"]
    height, width = size if isinstance(size, list) else (size, size)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    tensors = record.record(library, model, images, train=False)
    logits = tensors["logits"]
    recording = folder / f"{name}.recording.safetensors"
    kept = {"input": images, "logits": logits}
    save_file(kept, recording, metadata={"config": json.dumps(config)})
    path = folder / name if form == "folder" else folder / f"{name}.{form}"
    weights = record.save_weights(library, model, path)
    # Without help: the configuration has to be found.
    found = run([adavit, "inspect", str(weights), "--json"])["config"]
    for key in ["embed_dim", "depth", "num_heads", "patch_size", "num_classes"]:
        assert found[key] == config[key], (key, found[key], config[key])
    shares = []
    for path in ["masked", "sparse"]:
        command = [adavit, "verify", str(recording), "--checkpoint", str(weights)]
        output = run([*command, "--exec", path, "--json"], check=False)
        comparison = output["recordings"][0]["comparisons"][-1]
        shares.append(comparison["max_abs"] / logits.abs().max().item())
    weights.unlink()
    return logits.std().item(), shares


def run(command, check=True):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=check)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("adavit", help="the program")
    args = parser.parse_args()
    logging.disable_progress_bar()
    failed = False
    print(f"{'model':<36}{'std of logits':>14}{'masked':>12}{'sparse':>12}  (largest difference / largest logit)")
    with tempfile.TemporaryDirectory() as folder:
        for library, name, form in MODELS:
            std, shares = compare(args.adavit, Path(folder), library, name, form)
            passed = std >= 1 and max(shares) <= TOLERANCE
            failed |= not passed
            row = f"{library + ' ' + name:<36}{std:>14.2f}{shares[0]:>12.2e}{shares[1]:>12.2e}"
            print(row, "pass" if passed else "FAIL", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
