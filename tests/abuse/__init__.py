"""Attacks on the running stack through its public addresses, each with honest purchases in parallel.

One module for each kind of attack. SECURITY.md has a row for each of them, with its promise and its setting.
"""
