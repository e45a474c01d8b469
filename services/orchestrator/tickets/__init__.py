"""Tickets: QR codes, scans at the gate, and one-time codes."""
