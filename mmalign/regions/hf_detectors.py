"""Detectors of the transformers library: those that look for phrases, and those with classes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.encoders import ImageLike, hub_access, load_rgb, probe_hub, resolve_device, unavailable
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.regions.detectors import MAX_DETECTIONS, Detector, as_regions, check_request
from mmalign.types import Region

if TYPE_CHECKING:
    import torch

_OWL = ("owlvit", "owlv2")
_DINO = ("grounding-dino", "mm-grounding-dino")


def load_hf_detector(model: str, *, device: str | None = None) -> Detector:
    """Load a detector of the Hugging Face hub, or of a folder.

    Args:
        model: `organisation/name`, or a folder that `save_pretrained` of the model and of its processor wrote.
        device: A torch device; None for CUDA where there is one, else the processor.

    Returns:
        The detector.

    Raises:
        ModelUnavailableError: Not here and out of reach, damaged, or not a detector of a kind that is known here.
        InputError: A device that this machine does not have.
    """
    import transformers

    spec, folder = f"hf:{model}", Path(model).expanduser()
    if not folder.is_dir() and model.startswith(("/", "./", "../", "~")):
        raise ModelUnavailableError(f"{spec}: there is no such folder; save_pretrained of model and processor make one")
    local = folder.is_dir()
    where, probe = (str(folder) if local else model), None if local else probe_hub()
    with hub_access(probe), _quiet(probe is None or not probe.reachable):
        try:
            kind = transformers.AutoConfig.from_pretrained(where, local_files_only=local).model_type
            zero_shot = kind in _OWL + _DINO
            # The library's classes carry annotations only in part.
            loader: Any = transformers.AutoModelForObjectDetection
            reader: Any = transformers.AutoImageProcessor
            if zero_shot:
                loader, reader = transformers.AutoModelForZeroShotObjectDetection, transformers.AutoProcessor
            net = loader.from_pretrained(where, local_files_only=local).to(resolve_device(device)).eval()
            processor = reader.from_pretrained(where, local_files_only=local)
        except InputError:
            raise
        except Exception as error:  # the library lets errors of the hub client, torch, json and tokenizers through
            raise _unavailable(spec, probe, error) from error
    if kind in _OWL:
        return OwlDetector(spec, net, processor)
    if kind in _DINO:
        return GroundingDinoDetector(spec, net, processor)
    return ClassDetector(spec, net, processor)


class ClassDetector:
    """A model with classes of its own: DETR, RT-DETR, YOLOS and their kin.

    Args:
        name: The spec that loads it.
        net: The model.
        processor: Its image processor.
    """

    open_vocabulary = False

    def __init__(self, name: str, net: Any, processor: Any) -> None:
        self.name, self._net, self._processor = name, net, processor

    def detect(
        self,
        image: ImageLike,
        phrases: Sequence[str] = (),
        *,
        threshold: float | None = None,
        most: int = MAX_DETECTIONS,
    ) -> tuple[Region, ...]:
        """Propose regions; see `Detector.detect`."""
        least = check_request(threshold, most, usual=0.3)
        picture = load_rgb(image)
        outputs = _run(self._net, self._processor(images=picture, return_tensors="pt"))
        found = self._processor.post_process_object_detection(
            outputs, threshold=least, target_sizes=[picture.size[::-1]]
        )[0]
        names = self._net.config.id2label
        labels = [str(names.get(number, number)) for number in found["labels"].tolist()]
        return as_regions(found["boxes"], found["scores"], labels, picture.size, least=least, most=most)


class OwlDetector:
    """OWL-ViT or OWLv2: each region is labelled with the phrase that fits it best.

    Args:
        name: The spec that loads it.
        net: The model.
        processor: Its processor.

    Source: Minderer et al., Simple Open-Vocabulary Object Detection with Vision Transformers, 2022.
    """

    open_vocabulary = True

    def __init__(self, name: str, net: Any, processor: Any) -> None:
        self.name, self._net, self._processor = name, net, processor

    def detect(
        self,
        image: ImageLike,
        phrases: Sequence[str] = (),
        *,
        threshold: float | None = None,
        most: int = MAX_DETECTIONS,
    ) -> tuple[Region, ...]:
        """Propose regions; see `Detector.detect`."""
        least, asked = check_request(threshold, most, usual=0.1), _asked(self.name, phrases)
        picture = load_rgb(image)
        length = self._net.config.text_config.max_position_embeddings
        inputs = self._processor(
            images=picture, text=[asked], truncation=True, max_length=length, padding="max_length", return_tensors="pt"
        )
        outputs = _run(self._net, inputs)
        found = self._processor.post_process_grounded_object_detection(
            outputs, threshold=least, target_sizes=[picture.size[::-1]], text_labels=[asked]
        )[0]
        return as_regions(found["boxes"], found["scores"], found["text_labels"], picture.size, least=least, most=most)


class GroundingDinoDetector:
    """Grounding DINO, with each region labelled with a phrase as it was given.

    A region's score for a phrase is the highest of its tokens. The library's own reading joins whatever tokens are
    high into a label, which then is no phrase that anybody asked for.

    Args:
        name: The spec that loads it.
        net: The model.
        processor: Its processor.

    Source: Liu et al., Grounding DINO, 2023.
    """

    open_vocabulary = True

    def __init__(self, name: str, net: Any, processor: Any) -> None:
        self.name, self._net, self._processor = name, net, processor

    def detect(
        self,
        image: ImageLike,
        phrases: Sequence[str] = (),
        *,
        threshold: float | None = None,
        most: int = MAX_DETECTIONS,
    ) -> tuple[Region, ...]:
        """Propose regions; see `Detector.detect`."""
        least, asked = check_request(threshold, most, usual=0.25), _asked(self.name, phrases)
        picture = load_rgb(image)
        regions: list[Region] = []
        for group in self._groups(asked):
            regions += self._look(picture, group, least=least, most=most)
        return tuple(sorted(regions, key=lambda region: -region.score)[:most])

    def _groups(self, phrases: list[str]) -> list[list[str]]:
        """Phrases that together fit into what the model reads."""
        limit = self._net.config.max_text_len - 2
        groups: list[list[str]] = []
        room = 0
        for phrase in phrases:
            needed = len(self._tokens(phrase)) + 1
            if needed > limit:
                raise InputError(f"{self.name} reads {limit} tokens, this phrase has {needed}: {phrase[:80]!r}...")
            if needed > room:
                groups.append([])
                room = limit
            groups[-1].append(phrase)
            room -= needed
        return groups

    def _tokens(self, phrase: str) -> list[int]:
        # A full stop would end the phrase.
        words = " ".join(phrase.lower().replace(".", " ").split())
        tokens: list[int] = self._processor.tokenizer(words, add_special_tokens=False)["input_ids"]
        return tokens

    def _look(self, picture: Any, phrases: list[str], *, least: float, most: int) -> tuple[Region, ...]:
        import torch

        tokenizer = self._processor.tokenizer
        stop, (first, last) = tokenizer.convert_tokens_to_ids("."), (tokenizer.cls_token_id, tokenizer.sep_token_id)
        tokens, spans = [first], []
        for phrase in phrases:
            own = self._tokens(phrase)
            spans.append(slice(len(tokens), len(tokens) + len(own)))
            tokens += [*own, stop]
        tokens.append(last)
        numbers = torch.tensor([tokens])
        inputs = dict(self._processor.image_processor(images=picture, return_tensors="pt"))
        inputs |= {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}
        inputs["token_type_ids"] = torch.zeros_like(numbers)
        outputs = _run(self._net, inputs)
        probabilities = outputs.logits[0].float().sigmoid()
        by_phrase = torch.stack(
            [
                probabilities[:, span].amax(1)
                if span.stop > span.start
                else probabilities.new_zeros(len(probabilities))
                for span in spans
            ],
            dim=1,
        )
        scores, which = by_phrase.max(dim=1)
        centre, sides = outputs.pred_boxes[0].float().split(2, dim=1)
        size = torch.tensor([*picture.size, *picture.size], device=centre.device)
        corners = torch.cat([centre - sides / 2, centre + sides / 2], dim=1) * size
        labels = [phrases[number] for number in which.tolist()]
        return as_regions(corners, scores, labels, picture.size, least=least, most=most)


def _asked(name: str, phrases: Sequence[str]) -> list[str]:
    if isinstance(phrases, str) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise InputError(f"phrases must be a list of texts that are not empty, got {phrases!r}")
    if not phrases:
        raise InputError(f"{name} looks for phrases, and none was given; a sentence without any has nothing to find")
    return list(dict.fromkeys(phrases))


def _run(net: Any, inputs: Any) -> Any:
    import torch

    placed: dict[str, torch.Tensor] = {name: tensor.to(net.device) for name, tensor in inputs.items()}
    with torch.inference_mode():
        return net(**placed)


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Hold back the bar that counts tensors read from disk, which says nothing; one of a download is wanted."""
    from transformers.utils import logging

    bars: Any = logging  # its functions carry no annotations
    shown = wanted and bars.is_progress_bar_enabled()
    if shown:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _unavailable(spec: str, probe: Any, error: Exception) -> ModelUnavailableError:
    if isinstance(error, ValueError) and "Unrecognized configuration class" in str(error):
        return ModelUnavailableError(
            f"{spec} is no detector that transformers knows; expected OWL-ViT, OWLv2, Grounding DINO, DETR or its kin"
        )
    if probe is None or probe.reachable:
        first = " ".join(str(error).split())[:400]
        return ModelUnavailableError(
            f"{spec} could not be loaded: {first}; check the name, or that the folder holds what save_pretrained of "
            "the model and of its processor wrote. Regions without a detector need no network: proposals"
        )
    return unavailable(spec, probe, error)
