"""`caption`: the captions that pretraining makes of keywords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.cli.output import AsJson, errors_console, require_text, write_json
from clapboard.labels.captions import RULES, Captioner, Relation

if TYPE_CHECKING:
    from training.captions.t5 import T5Captioner


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(caption)


def caption(
    keywords: Annotated[list[str], typer.Argument(metavar="KEYWORDS...", help="Tags of one recording.")],
    count: Annotated[int, typer.Option(help="Number of captions.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the random choices.", min=0)] = 0,
    relation: Annotated[
        Relation,
        typer.Option(help="How several sounds relate: at once, one after another, or the first before a background."),
    ] = "together",
    t5: Annotated[str | None, typer.Option(help="Let this text model write the captions: a hub id or folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print captions of keywords, one per line, by default as pretraining makes them."""
    import numpy as np

    require_text(keywords, "The keyword")
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
            f"{replaced} of {count} were made by rule, because the model's text named none of the keywords.",
            highlight=False,
        )


def _by_model(model: str, num_variants: int, seed: int) -> T5Captioner:
    from training.captions.t5 import T5Captioner
    from training.captions.text_generator import TextGenerator

    return T5Captioner(TextGenerator.load(model), num_variants=num_variants, seed=seed)
