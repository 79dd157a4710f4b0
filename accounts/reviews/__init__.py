"""Permission reviews: who has what, by which grant, and what of it is used, for an owner to approve or to take back.

facts.py    all that reports are made of, read once for however many of them
report.py   the report of one owner

What becomes of a decision is in `repos.reviews`: revoking goes the way that the API goes.
"""
