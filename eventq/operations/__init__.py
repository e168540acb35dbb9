"""What a queue can be asked that takes several calls, or a check before one: steps that any runner performs. No I/O."""
