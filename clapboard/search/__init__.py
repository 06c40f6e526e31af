"""Where in a project something sounds like a text, a file or a task.

A `request` asks, `examples` hears its sounds, `query` makes one direction of them all, `project` looks for it.
"""
