"""Keywords → captions: a tag says what is heard, a caption says it as people do, in one of many ways.

Pretraining draws captions, so that a paraphrase is understood; prompt ensembles of zero-shot are made of the same.
"""

from clapboard.captions.rules import RULES, Captioner, KeywordsAlone, Relation, RuleCaptioner, ensemble, raw
from clapboard.captions.tags import has_word

__all__ = ["RULES", "Captioner", "KeywordsAlone", "Relation", "RuleCaptioner", "ensemble", "has_word", "raw"]
