"""Synthetic sounds: call `synthesis`; the other modules have the generators, grouped by what makes the sound."""
