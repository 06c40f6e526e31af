"""Where in a project something sounds like a text, a file or a task.

search_terms     what people search by
search_request   what is sent to a worker; `portable_request` makes it from the terms of a command
search_service   hands a request to the workers and waits for the answer
example_embedder embeds the terms, in a worker
query            makes one direction of them
nearest, places  find the windows nearest to it, and join neighbours
project_search   all of these for one project
"""
