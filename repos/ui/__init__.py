"""The pages that people see in a browser.

door.py         every page's way in: sessions, forged requests, what a refusal looks like, headers
navigation.py   the places that every page leads to
sign_in.py      by password, and at a provider; and out again
account.py      who one is, one's tokens and sessions
explain.py      who may do what, and why
reviews.py      permission reviews, and what to decide of each item
style.py        the stylesheet
urls.py         every address

All pages work without JavaScript and have none. Templates are in templates/ui/, and every text in them goes through gettext.
"""
