"""MLflow and the BentoML store: versions, aliases, promotion, pull, retention."""
