"""Configuration as a document: what an installation is made of, as text that is applied, compared and exported.

documents.py     files in, one document out; other products' forms are translated here
fields.py        the words that documents are written in: durations, globs, secrets
section.py       what a section is
kept.py          secrets that are kept for others
sources.py       what directories, providers and trusts have in common
repositories.py  accounts.py  directories.py  providers.py  trusts.py  singles.py       the sections
engine.py        apply, diff and export, for any section

A section is a list of items that have names. An item becomes what the document says of it; what it leaves out has its default.
What no document names is left alone, unless missing items are asked to be pruned.
"""
