"""`make locust`: a contended sale by locust users, and a live dashboard of it.

watch.py     reads seats, won and lost holds, and the invariants that must hold at any time
server.py    serves page.html and this state, only on this machine
__main__.py  runs system, dashboard and locust until Ctrl-C
"""
