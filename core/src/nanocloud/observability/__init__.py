"""What the node says of itself: structured logs and metrics."""
