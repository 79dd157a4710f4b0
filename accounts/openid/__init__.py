"""Believing what issuers outside say of somebody: OpenID Connect for people, and the tokens of CI jobs.

issuer.py     what an issuer says of itself, its keys, and whether a token is its own
provider.py   the providers where people sign in, as they are configured
flow.py       one sign-in at a provider
"""
