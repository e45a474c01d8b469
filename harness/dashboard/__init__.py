"""`make locust`: a contended sale by locust's users, and a page that shows it live.

watch.py     what is looked at: seats, holds won and lost, the invariants that must hold at any time
server.py    serves that and page.html, on this machine alone
__main__.py  system, page and locust together, until Ctrl-C
"""
