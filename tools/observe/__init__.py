"""A load, a receiver of alerts, and everything between them in one terminal: `python -m tools.observe`."""
