"""A fake of DB-less Kong 3.9, for machines without a Kong image. It serves the same configuration file.

Limits: HTTP/1.1 only, no TLS, no streaming, no Admin API, and one address per service. Invalid HTTP gets gunicorn's
400. A plugin, field or value that is not in `declarative.py` stops the start.

The order of plugins, precedence of scopes, messages, headers and error templates are those of Kong 3.9.
The fake imports nothing of the system behind it, so that both cannot share a mistake.
"""
