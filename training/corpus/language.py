"""Detects the language of captions, leniently: a short one such as “a dog barks twice” is little evidence."""

from __future__ import annotations

from collections.abc import Collection

from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

from clapboard.errors import SettingsError

# The languages in which most captions of sounds are written. All 75 would take a gigabyte, and short texts would then
# be taken for rare languages.
_RIVALS = (
    *(Language.ENGLISH, Language.GERMAN, Language.FRENCH, Language.SPANISH, Language.PORTUGUESE, Language.ITALIAN),
    *(Language.DUTCH, Language.SWEDISH, Language.FINNISH, Language.POLISH, Language.TURKISH, Language.RUSSIAN),
    *(Language.CHINESE, Language.JAPANESE, Language.KOREAN, Language.ARABIC, Language.HINDI, Language.INDONESIAN),
)
_MIN_WORDS = 3
# Among the short captions in other languages that we tried, the most English one has 0.25.
_MIN_RATIO = 0.28


class LanguageJudge:
    """Judges whether captions are in one of the wanted languages. It is thread-safe."""

    def __init__(self, wanted: Collection[str]) -> None:
        """`wanted` are ISO 639-1 codes. Raises `SettingsError` for an unknown code."""
        self._wanted = frozenset(_language(code) for code in wanted)
        self._detector = LanguageDetectorBuilder.from_languages(*{*_RIVALS, *self._wanted}).build()

    def accepts(self, caption: str) -> bool:
        """Whether the caption is likely to be in a wanted language: none is nearly four times as likely.

        A caption without letters is accepted, and so is one of a word or two in plain letters: “door” and “cicadas”
        look Dutch and Portuguese.
        """
        if caption.isascii() and len(caption.split()) < _MIN_WORDS:
            return True
        confidences = self._detector.compute_language_confidence_values(caption)
        likeliest = max(confidence.value for confidence in confidences)
        wanted = max(confidence.value for confidence in confidences if confidence.language in self._wanted)
        return wanted >= likeliest * _MIN_RATIO


def _language(code: str) -> Language:
    try:
        return Language.from_iso_code_639_1(IsoCode639_1.from_str(code))
    except ValueError:
        raise SettingsError(f"Language “{code}” is unknown: give ISO 639-1 codes such as en,de, or any.") from None
