"""Embeddings → suggestions: zero-shot scores, the fitted head, and the prediction that Label Studio gets."""
