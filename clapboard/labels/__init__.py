"""A label config → the labels that a recording may get, and the text prompts that describe them to the encoder."""
