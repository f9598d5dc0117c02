"""What is kept of every prediction: metrics, request log, captures, feedback."""
