"""The web client for customers and staff: static files in `web/`, and the process that serves them."""
