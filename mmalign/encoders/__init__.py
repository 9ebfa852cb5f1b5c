"""Encoders: texts and pictures to vectors in one space."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.encoders.adapted import save_adapted as save_adapted
    from mmalign.encoders.base import Calibrated as Calibrated
    from mmalign.encoders.base import Encoder as Encoder
    from mmalign.encoders.base import EncoderBase as EncoderBase
    from mmalign.encoders.base import EncodesBoxes as EncodesBoxes
    from mmalign.encoders.base import EncodesByRole as EncodesByRole
    from mmalign.encoders.base import EncodesPatches as EncodesPatches
    from mmalign.encoders.base import ImageLike as ImageLike
    from mmalign.encoders.base import KeepsCalibration as KeepsCalibration
    from mmalign.encoders.base import KnowsWords as KnowsWords
    from mmalign.encoders.base import Role as Role
    from mmalign.encoders.base import ShortensEmbeddings as ShortensEmbeddings
    from mmalign.encoders.base import TruncatesTexts as TruncatesTexts
    from mmalign.encoders.base import encode_query as encode_query
    from mmalign.encoders.base import has_patches as has_patches
    from mmalign.encoders.base import shorten as shorten
    from mmalign.encoders.base import stream_image as stream_image
    from mmalign.encoders.catalog import list_models as list_models
    from mmalign.encoders.dense import cell_weights as cell_weights
    from mmalign.encoders.device import autocast as autocast
    from mmalign.encoders.device import compute_alone as compute_alone
    from mmalign.encoders.device import has_bfloat16 as has_bfloat16
    from mmalign.encoders.device import resolve_device as resolve_device
    from mmalign.encoders.fingerprint import PROBES as PROBES
    from mmalign.encoders.fingerprint import tokens_digest as tokens_digest
    from mmalign.encoders.hub import hub_access as hub_access
    from mmalign.encoders.hub import probe_hub as probe_hub
    from mmalign.encoders.hub import unavailable as unavailable
    from mmalign.encoders.lite.efficientnet import EFFICIENTNET_WEIGHTS as EFFICIENTNET_WEIGHTS
    from mmalign.encoders.lite.efficientnet import FEATURES as FEATURES
    from mmalign.encoders.lite.efficientnet import MAP_CHANNELS as MAP_CHANNELS
    from mmalign.encoders.lite.efficientnet import PREPROCESSING as PREPROCESSING
    from mmalign.encoders.lite.efficientnet import STRIDE as STRIDE
    from mmalign.encoders.lite.efficientnet import EfficientNetLite2 as EfficientNetLite2
    from mmalign.encoders.lite.efficientnet import efficientnet_shapes as efficientnet_shapes
    from mmalign.encoders.lite.efficientnet import preprocess as preprocess
    from mmalign.encoders.lite.efficientnet import window_means as window_means
    from mmalign.encoders.lite.minilm import LAYERS as LAYERS
    from mmalign.encoders.lite.minilm import MINILM_WEIGHTS as MINILM_WEIGHTS
    from mmalign.encoders.lite.minilm import MiniLM as MiniLM
    from mmalign.encoders.lite.minilm import minilm_shapes as minilm_shapes
    from mmalign.encoders.lite.packaged_weights import check_digest as check_digest
    from mmalign.encoders.lite.packaged_weights import load_pinned as load_pinned
    from mmalign.encoders.lite.packaged_weights import locate as locate
    from mmalign.encoders.lite.quantised import Tensor as Tensor
    from mmalign.encoders.lite.quantised import map_safetensors as map_safetensors
    from mmalign.encoders.lite.quantised import read_tensors as read_tensors
    from mmalign.encoders.lite.quantised import to_float32 as to_float32
    from mmalign.encoders.lite.quantised import write_tensors as write_tensors
    from mmalign.encoders.lite.towers import POOLING as POOLING
    from mmalign.encoders.lite.towers import TwoTowerEncoder as TwoTowerEncoder
    from mmalign.encoders.lite.weights_file import PICTURE_INPUT as PICTURE_INPUT
    from mmalign.encoders.lite.weights_file import export_lite2 as export_lite2
    from mmalign.encoders.open_clip import OpenClipEncoder as OpenClipEncoder
    from mmalign.encoders.open_clip_source import near_matches as near_matches
    from mmalign.encoders.pictures import load_rgb as load_rgb
    from mmalign.encoders.prefetch import default_workers as default_workers
    from mmalign.encoders.prefetch import prefetch_batches as prefetch_batches
    from mmalign.encoders.region_features import compare_regions as compare_regions
    from mmalign.encoders.region_features import encode_regions as encode_regions
    from mmalign.encoders.registry import load_encoder as load_encoder
    from mmalign.encoders.registry import newer_version as newer_version
    from mmalign.encoders.texts import check_texts as check_texts

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapted": ["save_adapted"],
        "base": [
            "Calibrated",
            "Encoder",
            "EncoderBase",
            "EncodesBoxes",
            "EncodesByRole",
            "EncodesPatches",
            "ImageLike",
            "KeepsCalibration",
            "KnowsWords",
            "Role",
            "ShortensEmbeddings",
            "TruncatesTexts",
            "encode_query",
            "has_patches",
            "shorten",
            "stream_image",
        ],
        "catalog": ["list_models"],
        "dense": ["cell_weights"],
        "device": ["autocast", "compute_alone", "has_bfloat16", "resolve_device"],
        "fingerprint": ["PROBES", "tokens_digest"],
        "hub": ["hub_access", "probe_hub", "unavailable"],
        "lite.efficientnet": [
            "EFFICIENTNET_WEIGHTS",
            "EfficientNetLite2",
            "FEATURES",
            "MAP_CHANNELS",
            "PREPROCESSING",
            "STRIDE",
            "efficientnet_shapes",
            "preprocess",
            "window_means",
        ],
        "lite.minilm": ["LAYERS", "MINILM_WEIGHTS", "MiniLM", "minilm_shapes"],
        "lite.quantised": ["Tensor", "map_safetensors", "read_tensors", "to_float32", "write_tensors"],
        "lite.towers": ["POOLING", "TwoTowerEncoder"],
        "lite.weights_file": ["PICTURE_INPUT", "export_lite2"],
        "lite.packaged_weights": ["check_digest", "load_pinned", "locate"],
        "open_clip": ["OpenClipEncoder"],
        "open_clip_source": ["near_matches"],
        "pictures": ["load_rgb"],
        "prefetch": ["default_workers", "prefetch_batches"],
        "region_features": ["compare_regions", "encode_regions"],
        "registry": ["load_encoder", "newer_version"],
        "texts": ["check_texts"],
    },
)
