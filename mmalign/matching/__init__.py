"""Phrases and regions to an assignment: the problem, its solvers and their bound."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.matching.build import Matching as Matching
    from mmalign.matching.build import build_problem as build_problem
    from mmalign.matching.marginals import conditional_worth as conditional_worth
    from mmalign.matching.marginals import link_marginals as link_marginals
    from mmalign.matching.problem import FORBIDDEN as FORBIDDEN
    from mmalign.matching.problem import Assignment as Assignment
    from mmalign.matching.problem import Problem as Problem
    from mmalign.matching.solvers import Solution as Solution
    from mmalign.matching.solvers import SolverName as SolverName
    from mmalign.matching.solvers import solve as solve
    from mmalign.matching.spatial import mutual_iou as mutual_iou

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["Matching", "build_problem"],
        "marginals": ["conditional_worth", "link_marginals"],
        "problem": ["Assignment", "FORBIDDEN", "Problem"],
        "solvers": ["Solution", "SolverName", "solve"],
        "spatial": ["mutual_iou"],
    },
)
