"""Synthetic sounds: `synthesis` is the way in; the generators stand by what makes the sound."""
