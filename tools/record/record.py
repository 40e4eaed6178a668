"""Records what a timm or transformers model computes, for `adavit verify`.

    python record.py timm deit_small_patch16_224 deit_small.safetensors --redraw
    python record.py timm vit_tiny_patch16_224 small.safetensors --redraw --train \
        --model-args '{"embed_dim": 24, "depth": 3, "num_heads": 3, "img_size": 32, "patch_size": 8}'
    python record.py transformers vit hf.safetensors --redraw --weights hf/

docs/recordings.md says what is in the file.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def build(library, name, model_args):
    """A model with random weights, in evaluation mode."""
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, **model_args).eval()
    import transformers

    config = {"vit": transformers.ViTConfig}[name](**model_args)
    return transformers.ViTForImageClassification(config).eval()


def redraw(model, seed):
    """Draws weights so wide that logits have a standard deviation of at least about 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like, mean, std):
        return mean + std * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 1:
                is_scale = name.endswith("weight")
                tensor.copy_(normal(tensor, 1.0 if is_scale else 0.0, 0.2 if is_scale else 0.1))
            elif tensor.ndim == 3:
                tensor.copy_(normal(tensor, 0.0, 0.2))
            else:
                wide = 2.4 if "head" in name or "classifier" in name else 1.2
                tensor.copy_(normal(tensor, 0.0, wide * tensor[0].numel() ** -0.5))


def blocks_of(library, model):
    if library == "timm":
        return model.blocks
    return model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer


def config_of(library, model):
    """The published constructor's arguments, as far as a plain model has them."""
    if library == "timm":
        patch_embed, block = model.patch_embed, model.blocks[0]
        return {
            "img_size": list(patch_embed.img_size),
            "patch_size": patch_embed.patch_size[0],
            "in_chans": patch_embed.proj.in_channels,
            "num_classes": model.num_classes,
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": block.attn.num_heads,
            "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
            "qkv_bias": block.attn.qkv.bias is not None,
            "ln_eps": model.norm.eps,
            "distilled": hasattr(model, "dist_token"),
        }
    config = model.config
    size = config.image_size
    return {
        "img_size": list(size) if isinstance(size, (list, tuple)) else size,
        "patch_size": config.patch_size,
        "in_chans": config.num_channels,
        "num_classes": config.num_labels,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "ln_eps": config.layer_norm_eps,
    }


def record(library, model, images, train):
    """Runs the model, and returns every tensor of the recording but the weights."""
    hidden = []

    def keep(_module, _inputs, output):
        hidden.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks_of(library, model)]
    with torch.set_grad_enabled(train):
        output = model(images)
    logits = output if isinstance(output, torch.Tensor) else output.logits
    for handle in handles:
        handle.remove()
    tensors = {"input": images, "logits": logits}
    tensors |= {f"hidden.{index}": state for index, state in enumerate(hidden)}
    if train:
        target = torch.arange(len(images)) % logits.shape[1]
        loss = torch.nn.functional.cross_entropy(logits, target)
        loss.backward()
        tensors |= {"target": target, "loss": loss, "base_loss": loss.clone()}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                tensors[f"grad.{name}"] = parameter.grad
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def state_dict(model):
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def save_weights(library, model, path):
    """Writes the weights as the library does; returns the file."""
    path = Path(path)
    if library == "transformers":
        model.save_pretrained(path)
        return path / "model.safetensors"
    if path.suffix == ".safetensors":
        save_file(state_dict(model), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=["timm", "transformers"])
    parser.add_argument("name", help="a model of timm, or vit")
    parser.add_argument("out", help="the recording to write, a safetensors file")
    parser.add_argument("--model-args", type=json.loads, default={}, help="JSON, for the constructor")
    parser.add_argument("--redraw", action="store_true", help="draw weights wide, from --seed")
    parser.add_argument("--train", action="store_true", help="record a loss and its gradients too")
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--seed", type=int, default=0, help="of images and weights")
    parser.add_argument("--weights", help="write the weights here, not into the recording")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = build(args.library, args.name, args.model_args)
    if args.redraw:
        redraw(model, args.seed)
    config = config_of(args.library, model)
    size = config["img_size"]
    height, width = size if isinstance(size, list) else (size, size)
    generator = torch.Generator().manual_seed(args.seed + 1)
    images = torch.randn(args.batch, config["in_chans"], height, width, generator=generator)
    tensors = record(args.library, model, images, args.train)
    if args.weights:
        save_weights(args.library, model, args.weights)
    else:
        tensors |= {f"weights.{name}": t for name, t in state_dict(model).items()}
    note = f"{args.library} {args.name}, torch {torch.__version__}, seed {args.seed}"
    save_file(tensors, args.out, metadata={"config": json.dumps(config), "note": note})
    print(f"{args.out}: {len(tensors)} tensors, logits with standard deviation {tensors['logits'].std():.2f}")


if __name__ == "__main__":
    main()
