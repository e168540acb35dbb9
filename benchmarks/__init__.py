"""What eventq's performance claims rest on: workloads, peers run in turn, ratios and their targets."""
