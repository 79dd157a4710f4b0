"""Directories (LDAP, RFC 4511): who signs in by a name and password that is not kept here, and which groups they are in.

settings   what the configuration says of each directory
link       a connection on which the service account is bound
lookup     people and groups, as searches
names      distinguished names, and what a group is called by the configuration
signin     one sign-in: found, not disabled, their own bind succeeds
follow     everybody who has signed in once, again and again: groups and accounts that went away

`ldap` is an optional part, so it is imported where it is used.
"""
