"""Small randomly initialised models on disk, and the raw library as the oracle for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
COCA = {
    **CLIP,
    "custom_text": True,
    "vision_cfg": {**CLIP["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**CLIP["text_cfg"], "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
SIGLIP = {
    "embed_dim": 96,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": "test_vit3",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 160,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 64,
        "hf_tokenizer_name": ".",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
MOBILECLIP = {
    "embed_dim": 48,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": "fastvit_mci0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": None,
        "timm_drop": 0.0,
        "timm_drop_path": 0.0,
        "image_size": 64,
    },
    "text_cfg": {**CLIP["text_cfg"], "no_causal_mask": True},
}
WORDS = ["a", "the", "photo", "of", "dog", "cat", "snow", "beach", "red", "blue", "two", "running", "in", "on", "and"]


def save_clip(folder: Path, name: str, config: dict[str, Any] = CLIP, *, seed: int = 0) -> Any:
    """Register an architecture with open_clip and save random weights as NAME.pt and NAME.safetensors."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _lively(open_clip.create_model(name, load_weights=False))
    torch.save(model.state_dict(), folder / f"{name}.pt")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors")
    return model


def save_local_dir(
    folder: Path, config: dict[str, Any], preprocessing: dict[str, Any], *, tokenizer: bool = False, seed: int = 1
) -> Path:
    """Save random weights as an open_clip model folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    name = f"tiny-{folder.name}-{seed}"
    (folder.parent / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder.parent / f"{name}.json")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _lively(open_clip.create_model(name, load_weights=False))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    description = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    if tokenizer:
        save_word_tokenizer(folder)
    return folder


def _lively(model: Any) -> Any:
    """Raise layer scales, which start near 0 and would leave all pictures with almost the same embedding."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
    return model.eval()


def save_word_tokenizer(folder: Path) -> None:
    """Save a tokenizer of whole words with start, end, padding and unknown marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(marks + WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=16,
    ).save_pretrained(folder)


def raw_open_clip(
    model_name: str, pretrained: str | None, *, images: Sequence[Image.Image], texts: Sequence[str], **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings by open_clip's own documented calls, one batch each."""
    import open_clip
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms(model_name, pretrained, **options)
    tokenizer = open_clip.get_tokenizer(model_name)
    model.eval()
    with torch.no_grad():
        pictures = model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
        sentences = model.encode_text(tokenizer(list(texts)), normalize=True)
    return pictures.numpy(), sentences.numpy()


def pictures(count: int, *, seed: int = 0) -> list[Image.Image]:
    """RGB pictures of several shapes, with structure at several scales."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        width, height = rng.integers(20, 90, size=2)
        coarse = rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
        result.append(Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC))
    return result


def sentences(count: int, *, seed: int = 0) -> list[str]:
    """Sentences of known words, from one word to more than any tiny model reads."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(1, 30)))) for _ in range(count)]
