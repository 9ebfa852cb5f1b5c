"""What an alignment gives: which phrase belongs where, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmalign.alignment.explain import Explanation, ObjectiveTerm, explain_phrase, split_objective
from mmalign.alignment.link import Link
from mmalign.errors import InputError
from mmalign.matching import Problem, Solution, mutual_iou
from mmalign.types import Note, Phrase, Region, Relation, check_flag, check_type, gives_json

if TYPE_CHECKING:
    import networkx
    from PIL import Image

# Regions that overlap by as much are one place.
_SAME_PLACE = 0.5


@dataclass(frozen=True, eq=False)
class Alignment:
    """Which phrases of a sentence belong to which regions of a picture.

    Attributes:
        sentence: The sentence.
        phrases: Its phrases.
        regions: The picture's regions.
        relations: What the sentence says of the phrases' places.
        links: Phrases and the regions that they got, by phrase; a plural phrase may have several.
        matrix: Shape (p, r), float32, 0 to 1: probability of each region for each phrase among all regions and none,
            given where the other phrases are. A row sums to 1 less the probability of none.
        unmatched_phrases: Indices of the phrases that got none.
        objective: Worth of the links, as `Problem.objective` has it.
        solver: The solver.
        bound: No links are worth more, or None where the solver does not say.
        converged: Whether the solver came to its end.
        notes: Remarks that a person should see.
        problem: What was solved.
        solution: What the solver said.
        similarity: Of each phrase to each region, shape (p, r), float32, before anything was weighed against anything.
        existence: Probability that each phrase is in the picture at all, shape (p,), or None where nobody says.
        heat: Where in the picture each phrase is, shape (p, h, w), float32, 0 to 1, row 0 at the top, or None.
        seconds: What each stage took, in seconds of wall time, by its name.
    """

    sentence: str
    phrases: tuple[Phrase, ...]
    regions: tuple[Region, ...]
    relations: tuple[Relation, ...]
    links: tuple[Link, ...]
    matrix: NDArray[np.float32] = field(repr=False)
    unmatched_phrases: tuple[int, ...]
    objective: float
    solver: str
    bound: float | None
    converged: bool
    notes: tuple[Note, ...] = ()
    problem: Problem = field(repr=False, kw_only=True)
    solution: Solution = field(repr=False, kw_only=True)
    similarity: NDArray[np.float32] | None = field(default=None, repr=False, kw_only=True)
    existence: NDArray[np.float32] | None = field(default=None, repr=False, kw_only=True)
    heat: NDArray[np.float32] | None = field(default=None, repr=False, kw_only=True)
    seconds: Mapping[str, float] = field(default_factory=dict, repr=False, kw_only=True)

    def draw(self, picture: Image.Image, *, heat: bool = True) -> Image.Image:
        """Draw the alignment: boxes and heat in the picture, the sentence with its phrases in the same colours.

        Args:
            picture: The picture that was aligned, of any mode.
            heat: Whether to shade where each phrase is.

        Returns:
            A larger picture of mode RGB; see `mmalign.alignment.drawing.draw.draw_alignment`.
        """
        # Only here: to draw needs Pillow, to align does not.
        from PIL.Image import Image as Picture

        from mmalign.alignment.drawing.draw import draw_alignment

        check_type("picture", picture, Picture, "a PIL picture")
        if 0 in picture.size:
            raise InputError("picture has no pixels; give the one that was aligned")
        check_flag("heat", heat)
        return draw_alignment(self, picture, heat=heat)

    def _repr_html_(self) -> str:
        """Show the alignment in a notebook: the sentence with its phrases marked, and where each of them is."""
        # Only here: it brings what draws.
        from mmalign.alignment.page import alignment_html

        return alignment_html(self)

    def probability(self, link: Link) -> float:
        """Say how probable the place of a link is, rather than its very region.

        Args:
            link: One of `links`.

        Returns:
            Probability, 0 to 1, of its region and of all that overlap with it by half: near copies share what one
            region would have.
        """
        near = mutual_iou([region.box for region in self.regions])[link.region] >= _SAME_PLACE
        return float(min(1.0, self.matrix[link.phrase][near].sum()))

    def terms(self) -> tuple[ObjectiveTerm, ...]:
        """Tell the summands of the objective apart; their values add up to it."""
        return split_objective(self.problem, self.solution.assignment)

    def explain(self, phrase: int | str) -> Explanation:
        """Say why a phrase got its regions, or none, and what would be otherwise.

        Args:
            phrase: Its index, or its text; of equal texts the first.

        Returns:
            The explanation; `text` has it in words.

        Raises:
            InputError: There is no such phrase.
        """
        check_type("phrase", phrase, (int, str), "the index of a phrase, or its text")
        texts = [known.text for known in self.phrases]
        index = phrase if isinstance(phrase, int) else texts.index(phrase) if phrase in texts else -1
        if not 0 <= index < len(texts):
            raise InputError(f"there is no phrase {phrase!r}; the phrases are: {', '.join(map(repr, texts)) or 'none'}")
        boxes = [region.box for region in self.regions]
        return explain_phrase(
            self.problem, self.solution, index, phrases=self.phrases, relations=self.relations, boxes=boxes
        )

    def to_graph(self) -> networkx.MultiDiGraph:
        """Give phrases, regions, links and relations as a graph.

        Returns:
            Nodes `("phrase", i)` with the attribute `text` and `("region", j)` with `box`; an edge of `kind` `link`
            with `score` for each link, and one for each relation from its subject to each of its objects, with its
            `kind`, and `value` where its phrases have regions: what it adds to the objective, in nats.
        """
        # Only here: it takes a while to import.
        import networkx

        graph = networkx.MultiDiGraph()
        graph.add_nodes_from((("phrase", i), {"text": phrase.text}) for i, phrase in enumerate(self.phrases))
        graph.add_nodes_from((("region", j), {"box": region.box.to_list()}) for j, region in enumerate(self.regions))
        for link in self.links:
            graph.add_edge(("phrase", link.phrase), ("region", link.region), kind="link", score=link.score)
        values: dict[int, float] = {}
        for term in self.terms():
            if term.kind == "relation":
                values[term.relation] = values.get(term.relation, 0.0) + term.value
        for index, relation in enumerate(self.relations):
            known = {"value": values[index]} if index in values else {}
            for other in relation.objects:
                graph.add_edge(("phrase", relation.subject), ("phrase", other), kind=relation.kind, **known)
        return graph

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the alignment as JSON-ready values, without the matrix."""
        return {
            "sentence": self.sentence,
            "phrases": [phrase.to_dict() for phrase in self.phrases],
            "regions": [region.to_dict() for region in self.regions],
            "relations": [relation.to_dict() for relation in self.relations],
            "links": [link.to_dict() | {"probability": self.probability(link)} for link in self.links],
            "unmatched_phrases": list(self.unmatched_phrases),
            "existence": None if self.existence is None else [float(chance) for chance in self.existence],
            "objective": self.objective,
            "bound": self.bound,
            "solver": self.solver,
            "converged": self.converged,
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }
