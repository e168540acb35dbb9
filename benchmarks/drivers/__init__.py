"""One process per run: what a peer does when the harness says `work`, `add` or `bulk`."""
