"""The embedded checkpoint: its recordings and captions, its recipe, its model card, and what each part of it gives."""
