from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from mmalign.errors import EncoderSpecError, InputError, ModelUnavailableError
from mmalign.regions.detectors import as_regions
from mmalign.regions.hf_detectors import GroundingDinoDetector, OwlDetector
from mmalign.regions.load import load_detector

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "a", "red", "green", "ball", "dog"]
MOBILE = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        CLIPTokenizer,
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessor,
        OwlViTProcessor,
    )

    folder = tmp_path_factory.mktemp("owl")
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 8, "bos_token_id": 52, "eos_token_id": 53}
    vision = {**small, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = OwlViTConfig(text_config=text, vision_config=vision, projection_dim=16)
    OwlViTForObjectDetection(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    OwlViTProcessor(OwlViTImageProcessor(size=size, crop_size=size), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder = tmp_path_factory.mktemp("dino")
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    backbone = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = {
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=12,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_text_len=16,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    reader = GroundingDinoImageProcessor(size={"shortest_edge": 80, "longest_edge": 112})
    GroundingDinoProcessor(reader, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    folder = tmp_path_factory.mktemp("yolos")
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[32, 48],
        num_detection_tokens=10,
        id2label={0: "ball", 1: "dog"},
    )
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ssd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import get_model

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("ssd") / "weights.pth"
    torch.save(get_model(MOBILE, weights=None, weights_backbone=None, num_classes=91).state_dict(), file)
    return file


def inside(regions: Any, size: tuple[int, int]) -> bool:
    boxes = [region.box.corners for region in regions]
    return all(0 <= left < right <= size[0] and 0 <= top < bottom <= size[1] for left, top, right, bottom in boxes)


def test_owl_gives_what_the_library_gives(owl: Path, picture: Image.Image) -> None:
    detector = load_detector(f"hf:{owl}", device="cpu")
    assert isinstance(detector, OwlDetector)
    assert detector.open_vocabulary
    phrases = ["a red ball", "dog"]
    regions = detector.detect(picture, phrases, threshold=0.0)
    from transformers import OwlViTForObjectDetection, OwlViTProcessor

    processor, net = OwlViTProcessor.from_pretrained(owl), OwlViTForObjectDetection.from_pretrained(owl).eval()
    with torch.inference_mode():
        inputs = processor(images=picture, text=[phrases], truncation=True, max_length=8, return_tensors="pt")
        outputs = net(**inputs)
    scores, labels = outputs.logits[0].sigmoid().max(dim=1)
    centre, sides = outputs.pred_boxes[0].split(2, dim=1)
    seen = ((centre + sides / 2).clamp(0, 1) > (centre - sides / 2).clamp(0, 1)).all(dim=1) & (scores > 0)
    expected_scores = sorted(scores[seen].tolist(), reverse=True)
    assert [region.score for region in regions] == pytest.approx(expected_scores, abs=1e-6)
    assert seen.sum() >= 2
    scores[~seen] = 0
    best = int(scores.argmax())
    assert (regions[0].label, regions[0].source) == (phrases[labels[best]], "detector")
    x, y, wide, high = (outputs.pred_boxes[0, best] * torch.tensor([80, 60, 80, 60])).tolist()
    expected = max(x - wide / 2, 0), max(y - high / 2, 0), min(x + wide / 2, 80), min(y + high / 2, 60)
    assert regions[0].box.corners == pytest.approx(expected, abs=1e-3)
    assert inside(regions, picture.size)


def test_dino_scores_each_phrase_by_its_own_tokens(dino: Path, picture: Image.Image) -> None:
    detector = load_detector(f"hf:{dino}", device="cpu")
    assert isinstance(detector, GroundingDinoDetector)
    phrases = ["A Red ball", "green dog", "dog."]
    regions = detector.detect(picture, phrases, threshold=0.0)
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    processor = GroundingDinoProcessor.from_pretrained(dino)
    net = GroundingDinoForObjectDetection.from_pretrained(dino).eval()
    inputs = processor(images=picture, text="a red ball. green dog. dog.", return_tensors="pt")
    assert inputs["input_ids"].tolist() == [[2, 5, 6, 8, 4, 7, 9, 4, 9, 4, 3]]
    with torch.inference_mode():
        logits = net(**inputs).logits[0].sigmoid()
    by_phrase = torch.stack([logits[:, 1:4].amax(1), logits[:, 5:7].amax(1), logits[:, 8:9].amax(1)], dim=1)
    scores, which = by_phrase.max(dim=1)
    best = int(scores.argmax())
    assert regions[0].score == pytest.approx(float(scores[best]), abs=1e-5)
    assert regions[0].label == phrases[which[best]]
    assert {region.label for region in regions} <= set(phrases)
    assert inside(regions, picture.size)


def test_dino_looks_again_for_phrases_that_it_cannot_read_at_once(dino: Path, picture: Image.Image) -> None:
    detector = load_detector(f"hf:{dino}", device="cpu")
    assert isinstance(detector, GroundingDinoDetector)
    phrases = ["a red ball", "a green ball", "a red dog", "a green dog", "a dog"]
    groups = detector._groups(phrases)
    assert [len(group) for group in groups] == [3, 2]
    assert detector.detect(picture, phrases, threshold=0.0, most=3)[0].label in phrases
    with pytest.raises(InputError, match="reads 14 tokens, this phrase has 21"):
        detector.detect(picture, ["dog " * 20])


def test_a_detector_with_classes_names_them(yolos: Path, picture: Image.Image) -> None:
    detector = load_detector(f"hf:{yolos}", device="cpu")
    assert not detector.open_vocabulary
    regions = detector.detect(picture, threshold=0.0, most=4)
    assert len(regions) == 4
    assert {region.label for region in regions} <= {"ball", "dog"}
    assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)
    assert inside(regions, picture.size)


def test_torchvision_gives_what_the_library_gives(ssd: Path, picture: Image.Image) -> None:
    detector = load_detector(f"torchvision:{MOBILE}@{ssd}", device="cpu")
    regions = detector.detect(picture, threshold=0.0, most=1000)
    from torchvision.models import get_model, get_model_weights

    net = get_model(MOBILE, weights=None, weights_backbone=None, num_classes=91)
    net.load_state_dict(torch.load(ssd, weights_only=True))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        found = net.eval()([pixels])[0]
    whole = ((found["boxes"][:, 2:] - found["boxes"][:, :2]) > 0).all(dim=1)
    assert [region.score for region in regions] == pytest.approx(found["scores"][whole].tolist(), abs=1e-6)
    names = get_model_weights(MOBILE).DEFAULT.meta["categories"]
    assert regions[0].label == names[int(found["labels"][whole][0])]
    assert inside(regions, picture.size)


def test_regions_are_cut_at_the_edges_and_bad_ones_left_out() -> None:
    corners = torch.tensor([[-5.0, 2, 30, 9], [4, 4, 2, 8], [25, 0, 30, 5], [1, 1, 3, 3], [math.nan, 0, 5, 5]])
    scores = torch.tensor([0.5, 0.9, 0.9, 0.7, 0.9])
    regions = as_regions(corners, scores, list("abcde"), (20, 10), least=0.1, most=9)
    assert [(region.label, region.box.to_list()) for region in regions] == [("d", [1, 1, 2, 2]), ("a", [0, 2, 20, 7])]
    assert as_regions(corners, scores, list("abcde"), (20, 10), least=0.6, most=9) == regions[:1]
    assert as_regions(corners, scores, list("abcde"), (20, 10), least=0.1, most=1) == regions[:1]


def test_requests_that_mean_nothing(owl: Path, yolos: Path, picture: Image.Image) -> None:
    detector = load_detector(f"hf:{owl}", device="cpu")
    with pytest.raises(InputError, match="none was given"):
        detector.detect(picture)
    with pytest.raises(InputError, match="must be a list of texts"):
        detector.detect(picture, "a dog")
    with pytest.raises(InputError, match="threshold must lie between 0 and 1, got 2"):
        detector.detect(picture, ["dog"], threshold=2)
    with pytest.raises(InputError, match="most must be at least 1"):
        load_detector(f"hf:{yolos}", device="cpu").detect(picture, most=0)


def test_names_that_mean_nothing() -> None:
    with pytest.raises(EncoderSpecError, match=r"the forms are: torchvision:MODEL"):
        load_detector("owlvit")
    with pytest.raises(EncoderSpecError, match="near: fasterrcnn_resnet50_fpn"):
        load_detector("torchvision:fasterrcnn_resnet50")


def test_weights_that_do_not_fit(ssd: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"the weights are not those of retinanet"):
        load_detector(f"torchvision:retinanet_resnet50_fpn@{ssd}")
    with pytest.raises(ModelUnavailableError, match="there is no file"):
        load_detector(f"torchvision:{MOBILE}@{tmp_path / 'none.pth'}")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ModelUnavailableError, match="expected a state dict"):
        load_detector(f"torchvision:{MOBILE}@{tmp_path / 'text.pth'}")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelUnavailableError, match="holds no state dict"):
        load_detector(f"torchvision:{MOBILE}@{tmp_path / 'list.pth'}")


def test_folders_without_a_detector(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="there is no such folder"):
        load_detector(f"hf:{tmp_path / 'none'}")
    with pytest.raises(ModelUnavailableError, match="could not be loaded"):
        load_detector(f"hf:{tmp_path}")
    from transformers import BertConfig

    BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match="is no detector that transformers knows"):
        load_detector(f"hf:{tmp_path}")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelUnavailableError, match=r"hf:google/owlvit-nothing is not on this machine"):
        load_detector("hf:google/owlvit-nothing")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match=r"no route\. Connect once to fetch it, or put the file at"):
        load_detector(f"torchvision:{MOBILE}")
