"""A stand-in for DB-less Kong 3.9 where no Kong image can be had: it serves the very file that Kong would.

What it does, it does as Kong 3.9: order of plugins, precedence of scopes, messages, headers, error templates. What it
does not do, it refuses at start: every plugin, field or value outside `declarative.py`. Known gaps: HTTP/1.1 only, no
TLS, no streaming, no Admin API, one address per service, and a request that is not HTTP at all gets gunicorn's 400.

It imports nothing of the system it stands before, so that a shared mistake cannot hide.
"""
