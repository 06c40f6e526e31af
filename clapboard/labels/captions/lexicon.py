"""The words for which `grammar` and `tags` can't go by spelling. The lists cover the words that name sounds."""

from __future__ import annotations

# Nouns

IRREGULAR_PLURALS = {
    "child": "children", "person": "people", "foot": "feet", "goose": "geese", "mouse": "mice", "tooth": "teeth",
    "ox": "oxen", "quiz": "quizzes", "stomach": "stomachs", "hoof": "hooves", "echo": "echoes", "tornado": "tornadoes",
    "hero": "heroes", "potato": "potatoes", "knife": "knives", "life": "lives", "wife": "wives", "wolf": "wolves",
    "calf": "calves", "half": "halves", "leaf": "leaves", "loaf": "loaves", "shelf": "shelves", "thief": "thieves",
    "elf": "elves", "scarf": "scarves",
}  # fmt: skip
"""Irregular plurals by their singulars."""

PLURALS_WITHOUT_S = frozenset({
    "cattle", "folk", "livestock", "police", "poultry", "timpani",
})  # fmt: skip
"""Plurals that don't end in «s», without a singular of their own."""

SAME_IN_PLURAL = frozenset({
    "aircraft", "deer", "fish", "hovercraft", "series", "sheep", "spacecraft", "species",
})  # fmt: skip
"""Nouns whose plural is their singular."""

SINGULAR_IN_S = frozenset({
    "always", "atlas", "bias", "blues", "canvas", "chaos", "christmas", "gas", "lens", "news",
})  # fmt: skip
"""Words in «s» that are no plural."""

SINGULAR_IN_MEN = frozenset({
    "abdomen", "amen", "omen", "regimen", "specimen",
})  # fmt: skip
"""Words in «men» that are no plural."""

MASS_NOUNS = frozenset({
    "air", "ambience", "applause", "babble", "beatboxing", "birdsong", "bovinae", "brass", "breath", "canidae",
    "cardboard", "cattle", "cereal", "chaos", "chatter", "cloth", "clothes", "clothing", "commotion", "concrete",
    "cutlery", "dirt", "distortion", "dubstep", "dust", "electricity", "electronica", "equipment", "fabric", "feedback",
    "flamenco", "flour", "foil", "foliage", "food", "funk", "fur", "furniture", "garbage", "gas", "glass", "glassware",
    "grass", "gravel", "gunfire", "hail", "hair", "headphones", "hubbub", "ice", "indoors", "inside", "interference",
    "laughter", "leather", "lightning", "liquid", "livestock", "lumber", "machinery", "magma", "mastication", "metal",
    "mud", "music", "nature", "news", "noise", "ocean", "opera", "outdoors", "outside", "paper", "percussion",
    "plastic", "police", "popcorn", "poultry", "rain", "rainfall", "rap", "reverberation", "rice", "rubber", "salt",
    "sand", "scissors", "sea", "silence", "silverware", "sleet", "smoke", "snow", "speech", "static", "steam",
    "storytelling", "sugar", "surf", "thunder", "timber", "traffic", "turbulence", "vinyl", "water", "weather",
    "wildlife", "wind", "wood",
})  # fmt: skip
"""Nouns that take neither an article nor a number: «rain»."""

ONLY_ONE = frozenset({
    "ocean", "sea",
})  # fmt: skip
"""Nouns that take «the»: there is one of each."""

PLURAL_MODIFIERS = frozenset({
    "arms", "clothes", "effects", "goods", "mains", "police", "sports", "teeth",
})  # fmt: skip
"""Plurals that modify the noun after them: in «sports car», no sports do anything."""

# Verbs

NOUNS_IN_ING = frozenset({
    "anything", "building", "ceiling", "clothing", "duckling", "earring", "evening", "everything", "gosling",
    "lightning", "meeting", "morning", "nothing", "railing", "sibling", "something", "starling", "wedding",
})  # fmt: skip
"""Nouns in «ing» that name no action."""

TRANSITIVE_GERUNDS = frozenset({
    "blowing", "brushing", "chopping", "crumpling", "cutting", "drinking", "driving", "eating", "feeding", "hammering",
    "hitting", "ironing", "milking", "mowing", "peeling", "planing", "playing", "plucking", "raking", "riding",
    "sanding", "scrubbing", "sharpening", "shovelling", "shuffling", "slicing", "stapling", "stirring", "strumming",
    "sweeping", "typing", "unwrapping", "unzipping", "using", "vacuuming", "washing", "wrapping", "zipping",
})  # fmt: skip
"""Gerunds followed by their object: «washing dishes»."""

VERBS_OF_SOUND = frozenset({
    "bang", "bark", "beep", "blare", "bleat", "boom", "break", "burn", "buzz", "caw", "chatter", "cheer", "chime",
    "chirp", "chug", "clack", "clang", "clank", "clap", "clash", "clatter", "click", "clink", "cluck", "crackle",
    "crash", "creak", "croak", "crow", "crunch", "cry", "drip", "drop", "fall", "fire", "fizz", "flap", "flutter",
    "fly", "gallop", "giggle", "grind", "groan", "growl", "grunt", "gurgle", "hiss", "honk", "hoot", "howl", "hum",
    "jangle", "jingle", "knock", "laugh", "meow", "moan", "moo", "neigh", "oink", "pass", "peal", "play", "pop", "purr",
    "quack", "rattle", "rev", "ring", "roar", "roll", "rumble", "rustle", "scrape", "scream", "screech", "shatter",
    "shout", "shriek", "sing", "sizzle", "slam", "slosh", "snap", "snarl", "sneeze", "snip", "snore", "snort", "speak",
    "spin", "splash", "squawk", "squeak", "squeal", "swoosh", "talk", "thud", "thump", "tick", "tinkle", "toll",
    "trickle", "trill", "tweet", "twitter", "wail", "walk", "whimper", "whine", "whir", "whisper", "whistle", "whoosh",
    "yap", "yell", "yelp",
})  # fmt: skip
"""What a sound's source does; after a plural they are verbs: «dogs bark»."""

# Tags

ADJECTIVES = frozenset({
    "abnormal", "acoustic", "angry", "bad", "broken", "calm", "domestic", "exciting", "faulty", "good", "happy",
    "healthy", "industrial", "loud", "manmade", "mechanical", "natural", "neutral", "noisy", "normal", "other", "rural",
    "sad", "soft", "unknown", "urban",
})  # fmt: skip
"""Adjectives that can end a tag without a noun: «outside, urban or manmade»."""

GENRES = frozenset({
    "R&B", "bluegrass", "blues", "grunge", "heavy metal", "house music", "jazz", "reggae", "rhythm and blues", "ska",
    "techno", "trance",
})  # fmt: skip
"""Genres whose name is enough: «jazz»."""

GENRES_OF_MUSIC = {
    "classical": "classical music", "country": "country music", "disco": "disco music",
    "electronic": "electronic music", "folk": "folk music", "metal": "metal music", "pop": "pop music",
    "rock": "rock music", "soul": "soul music", "ambient": "ambient music", "hiphop": "hip hop", "hip hop": "hip hop",
    "drum and bass": "drum and bass", "rock and roll": "rock and roll",
}  # fmt: skip
"""How captions name the genres whose tag means something else too, or is spelt in another way."""
