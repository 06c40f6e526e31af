"""Keywords → captions: sentences that say what the keywords name, as people would, in one of many ways.

Pretraining draws captions, so that the model learns paraphrases; zero-shot prompt ensembles are made in the same way.
"""

from clapboard.labels.captions.rules import RULES, Captioner, KeywordsAlone, Relation, RuleCaptioner, ensemble, raw
from clapboard.labels.captions.tags import has_word

__all__ = ["RULES", "Captioner", "KeywordsAlone", "Relation", "RuleCaptioner", "ensemble", "has_word", "raw"]
