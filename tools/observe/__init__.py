"""A load, receivers of alerts and spans, and everything between them in one terminal: `python -m tools.observe`."""
