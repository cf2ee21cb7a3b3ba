"""`unsample serve`: a page in the browser, and the server behind it. A door: it runs the verbs of the command line.

A job is a list of their commands (`commands`), made of what the page asks (`asked`), checked before it is queued and
run one at a time (`jobs`, `work`) in a folder of its own; the page shows these very commands. `keep` holds the files of
the session, `guard` what comes in from outside, `page/` is sent to the browser as it is.
"""
