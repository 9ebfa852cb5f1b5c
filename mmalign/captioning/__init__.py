"""A caption for a picture, from what was retrieved for it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.captioning.captioner import Captioner as Captioner
    from mmalign.captioning.consensus import Consensus as Consensus
    from mmalign.captioning.consensus import MBRConfig as MBRConfig
    from mmalign.captioning.consensus import word_weights as word_weights
    from mmalign.captioning.decoders.base import CaptionsMany as CaptionsMany
    from mmalign.captioning.decoders.base import Decoder as Decoder
    from mmalign.captioning.decoders.base import check_trained_for as check_trained_for
    from mmalign.captioning.decoders.fusion import FusionName as FusionName
    from mmalign.captioning.decoders.generation import GenerationConfig as GenerationConfig
    from mmalign.captioning.decoders.generation import generate as generate
    from mmalign.captioning.decoders.hf import LanguageModel as LanguageModel
    from mmalign.captioning.decoders.model import DecoderConfig as DecoderConfig
    from mmalign.captioning.decoders.model import MultimodalTransformer as MultimodalTransformer
    from mmalign.captioning.decoders.model import make_inputs as make_inputs
    from mmalign.captioning.decoders.model import make_model as make_model
    from mmalign.captioning.decoders.model import pad_targets as pad_targets
    from mmalign.captioning.decoders.prefix import PrefixFile as PrefixFile
    from mmalign.captioning.decoders.prefix import SoftPrefix as SoftPrefix
    from mmalign.captioning.decoders.prefix import write_prefix as write_prefix
    from mmalign.captioning.decoders.prompts import PROMPTED as PROMPTED
    from mmalign.captioning.decoders.registry import PREFIX as PREFIX
    from mmalign.captioning.decoders.registry import load_decoder as load_decoder
    from mmalign.captioning.decoders.tokenizer import CaptionTokenizer as CaptionTokenizer
    from mmalign.captioning.decoders.tokenizer import plain_words as plain_words
    from mmalign.captioning.decoders.trained import DecoderFile as DecoderFile
    from mmalign.captioning.decoders.trained import read_decoder as read_decoder
    from mmalign.captioning.decoders.trained import write_decoder as write_decoder
    from mmalign.captioning.retrieval import Retrieval as Retrieval
    from mmalign.captioning.retrieval import RetrievedCaptions as RetrievedCaptions
    from mmalign.captioning.retrieval import TextStore as TextStore
    from mmalign.captioning.retrieval import retrieve_context as retrieve_context
    from mmalign.captioning.verify import AlignmentJudge as AlignmentJudge
    from mmalign.captioning.verify import ground_caption as ground_caption

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "captioner": ["Captioner"],
        "consensus": ["MBRConfig", "Consensus", "word_weights"],
        "decoders.base": ["CaptionsMany", "Decoder", "check_trained_for"],
        "decoders.generation": ["GenerationConfig", "generate"],
        "decoders.fusion": ["FusionName"],
        "decoders.hf": ["LanguageModel"],
        "decoders.model": ["DecoderConfig", "MultimodalTransformer", "make_inputs", "make_model", "pad_targets"],
        "decoders.prefix": ["PrefixFile", "SoftPrefix", "write_prefix"],
        "decoders.prompts": ["PROMPTED"],
        "decoders.registry": ["PREFIX", "load_decoder"],
        "decoders.tokenizer": ["CaptionTokenizer", "plain_words"],
        "decoders.trained": ["DecoderFile", "read_decoder", "write_decoder"],
        "retrieval": ["RetrievedCaptions", "Retrieval", "TextStore", "retrieve_context"],
        "verify": ["AlignmentJudge", "ground_caption"],
    },
)
