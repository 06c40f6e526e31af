"""How well events are found: by method and number of reviewed recordings."""
