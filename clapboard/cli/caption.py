"""`caption`: what captions keywords become, before anything is trained on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.captions import RULES, Captioner, Relation
from clapboard.cli.output import AsJson, errors_console, write_json

if TYPE_CHECKING:
    from clapboard.captions.t5 import T5Captioner


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(caption)


def caption(
    keywords: Annotated[list[str], typer.Argument(metavar="KEYWORDS...", help="Tags of one recording.")],
    count: Annotated[int, typer.Option(help="How many captions to draw.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Where the draws start.", min=0)] = 0,
    relation: Annotated[
        Relation, typer.Option(help="How the sounds of several tags lie; in pretraining together.")
    ] = "together",
    t5: Annotated[str | None, typer.Option(help="Text model that writes them: hub id or folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Captions of keywords, by default as pretraining draws them: a line each."""
    import numpy as np

    rng = np.random.default_rng(seed)
    by_model = None if t5 is None else _by_model(t5, count, seed)
    captioner: Captioner = by_model or RULES
    captions = [captioner.caption(keywords, rng, relation=relation) for _ in range(count)]
    replaced = by_model.num_replaced if by_model else 0
    if as_json:
        write_json({"keywords": keywords, "relation": relation, "captions": captions, "replaced": replaced})
        return
    for text in captions:
        typer.echo(text)
    if replaced:
        errors_console().print(
            f"{replaced} of {count} are by rule: what the model wrote names none of the keywords.", highlight=False
        )


def _by_model(model: str, num_variants: int, seed: int) -> T5Captioner:
    from clapboard.captions.t5 import T5Captioner
    from clapboard.captions.text_generator import TextGenerator

    return T5Captioner(TextGenerator.load(model), num_variants=num_variants, seed=seed)
