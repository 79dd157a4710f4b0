"""The REST API under /api/v1/: everything that `apply` can do and more, for programs.

resource.py      what every resource has in common: who asks, query, body, ETags, pages, problems
permissions.py   who may ask
sections.py      the sections of the configuration, one item at a time, and the configuration as a whole
history.py       a repository's assets and changes
tokens.py  me.py     one's own
jobs.py          jobs: asked for, followed, cancelled, retried
shapes.py        what answers look like, for the schema
schema.py        OpenAPI
urls.py          every address

What is said of the configuration goes through `repos.configuration.engine`, the one place that checks and writes it.
"""
