"""The embedded checkpoint: its training data, recipe and model card, and an ablation of the recipe's parts."""
