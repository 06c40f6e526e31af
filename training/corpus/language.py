"""In which language a caption is, judged so that short captions survive: «a dog barks twice» is little evidence."""

from __future__ import annotations

from collections.abc import Collection

from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

from clapboard.errors import SettingsError

# What captions of sounds are written in most. All 75 languages would take a gigabyte, and short texts then look like
# some rare one.
_RIVALS = (
    *(Language.ENGLISH, Language.GERMAN, Language.FRENCH, Language.SPANISH, Language.PORTUGUESE, Language.ITALIAN),
    *(Language.DUTCH, Language.SWEDISH, Language.FINNISH, Language.POLISH, Language.TURKISH, Language.RUSSIAN),
    *(Language.CHINESE, Language.JAPANESE, Language.KOREAN, Language.ARABIC, Language.HINDI, Language.INDONESIAN),
)
_LEAST_WORDS = 3
# Of short captions in other languages the most English one has 0.25.
_LEAST_RATIO = 0.28


class LanguageJudge:
    """Says whether captions are in one of the wanted languages. For any number of threads."""

    def __init__(self, wanted: Collection[str]) -> None:
        """`wanted` are ISO 639-1 codes. Raises `SettingsError` for one that is none."""
        self._wanted = frozenset(_language(code) for code in wanted)
        self._detector = LanguageDetectorBuilder.from_languages(*{*_RIVALS, *self._wanted}).build()

    def accepts(self, caption: str) -> bool:
        """Whether the caption may well be in a wanted language: no other is four times as likely.

        A caption without letters is in every language, and one of a word or two in plain letters isn't judged: «door»
        and «cicadas» look Dutch and Portuguese.
        """
        if caption.isascii() and len(caption.split()) < _LEAST_WORDS:
            return True
        found = self._detector.compute_language_confidence_values(caption)
        likeliest = max(one.value for one in found)
        wanted = max(one.value for one in found if one.language in self._wanted)
        return wanted >= likeliest * _LEAST_RATIO


def _language(code: str) -> Language:
    try:
        return Language.from_iso_code_639_1(IsoCode639_1.from_str(code))
    except ValueError:
        raise SettingsError(f"Language “{code}” is not known: give ISO 639-1 codes such as en,de, or any.") from None
