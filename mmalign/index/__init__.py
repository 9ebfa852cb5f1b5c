"""Vectors to neighbours: the index protocol and its implementations."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.index import lifecycle as lifecycle
    from mmalign.index.backends import load_index as load_index
    from mmalign.index.backends import register_backend as register_backend
    from mmalign.index.base import Index as Index
    from mmalign.index.base import ScansExactly as ScansExactly
    from mmalign.index.base import SearchesOnDevice as SearchesOnDevice
    from mmalign.index.base import SearchesPositions as SearchesPositions
    from mmalign.index.base import TellsLayers as TellsLayers
    from mmalign.index.base import check_k as check_k
    from mmalign.index.compare import compare_all as compare_all
    from mmalign.index.faiss.gpu import place_index as place_index
    from mmalign.index.faiss.index import FaissIndex as FaissIndex
    from mmalign.index.faiss.index import require_gpu as require_gpu
    from mmalign.index.faiss.io import read_faiss as read_faiss
    from mmalign.index.faiss.library import check_faiss as check_faiss
    from mmalign.index.faiss.library import load_faiss as load_faiss
    from mmalign.index.lifecycle.build import build_index as build_index
    from mmalign.index.lifecycle.extend import extend_index as extend_index
    from mmalign.index.lifecycle.versions import IndexManifest as IndexManifest
    from mmalign.index.planning.choose import Candidate as Candidate
    from mmalign.index.planning.choose import IndexChoice as IndexChoice
    from mmalign.index.planning.choose import check_memory as check_memory
    from mmalign.index.planning.choose import choose as choose
    from mmalign.index.planning.choose import chooses_exact as chooses_exact
    from mmalign.index.planning.choose import installed_budget as installed_budget
    from mmalign.index.planning.costs import load_costs as load_costs
    from mmalign.index.planning.estimate import Meter as Meter
    from mmalign.index.planning.estimate import check_estimate as check_estimate
    from mmalign.index.planning.measured import put_measured as put_measured
    from mmalign.index.planning.measured import read_measured as read_measured
    from mmalign.index.planning.recipe import Device as Device
    from mmalign.index.planning.recipe import Recipe as Recipe
    from mmalign.index.planning.recipe import check_any_length as check_any_length
    from mmalign.index.planning.recipe import list_recipes as list_recipes
    from mmalign.index.planning.recipe import load_recipe as load_recipe
    from mmalign.index.recall.bounds import lower_bound as lower_bound
    from mmalign.index.recall.drift import compare_vectors as compare_vectors
    from mmalign.index.recall.drift import describe_vectors as describe_vectors
    from mmalign.index.recall.ground_truth import Truth as Truth
    from mmalign.index.recall.ground_truth import exact_truth as exact_truth
    from mmalign.index.recall.measure import Mask as Mask
    from mmalign.index.recall.measure import Measuring as Measuring
    from mmalign.index.recall.measure import QuerySet as QuerySet
    from mmalign.index.recall.measure import measure_recall_profile as measure_recall_profile
    from mmalign.index.recall.recall_curves import EXACT_ROWS as EXACT_ROWS
    from mmalign.index.recall.recall_curves import LEAST_DEPTH as LEAST_DEPTH
    from mmalign.index.recall.recall_curves import RecallCurve as RecallCurve
    from mmalign.index.recall.recall_curves import RecallProfile as RecallProfile

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["lifecycle"],
    submod_attrs={
        "backends": ["load_index", "register_backend"],
        "base": ["Index", "ScansExactly", "SearchesOnDevice", "SearchesPositions", "TellsLayers", "check_k"],
        "compare": ["compare_all"],
        "faiss.gpu": ["place_index"],
        "faiss.index": ["FaissIndex", "require_gpu"],
        "faiss.io": ["read_faiss"],
        "faiss.library": ["check_faiss", "load_faiss"],
        "lifecycle.build": ["build_index"],
        "lifecycle.extend": ["extend_index"],
        "lifecycle.versions": ["IndexManifest"],
        "planning.choose": ["Candidate", "IndexChoice", "check_memory", "choose", "chooses_exact", "installed_budget"],
        "planning.costs": ["load_costs"],
        "planning.estimate": ["Meter", "check_estimate"],
        "planning.measured": ["put_measured", "read_measured"],
        "planning.recipe": ["Device", "Recipe", "check_any_length", "list_recipes", "load_recipe"],
        "recall.bounds": ["lower_bound"],
        "recall.drift": ["compare_vectors", "describe_vectors"],
        "recall.ground_truth": ["Truth", "exact_truth"],
        "recall.measure": ["QuerySet", "Mask", "Measuring", "measure_recall_profile"],
        "recall.recall_curves": ["RecallProfile", "RecallCurve", "EXACT_ROWS", "LEAST_DEPTH"],
    },
)
