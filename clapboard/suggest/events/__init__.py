"""From frames to events: when each label sounds in a recording. Numpy alone, so that the HTTP backend can do it too."""
