"""The command that lists encoders."""

from __future__ import annotations

from mmalign.cli.output import JsonOption, print_json, print_table, size


def models(as_json: JsonOption = False) -> None:
    """List encoders: width, size, licence, whether the weights are here, and how good they are.

    For example:

        mmalign models

        mmalign index ~/photos --encoder open_clip:ViT-B-32/laion2b_s34b_b79k
    """
    from mmalign.encoders import list_models

    cards = list_models()
    if as_json:
        print_json([card.to_dict() for card in cards])
        return
    print_table(
        ["encoder", "dim", "size", "licence", "here", "quality"],
        [
            [
                card.spec,
                str(card.dim),
                size(card.bytes),
                card.licence,
                "yes" if card.cached else "no",
                card.quality or "",
            ]
            for card in cards
        ],
    )
