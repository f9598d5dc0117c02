"""The parts of service.py, each for one thing a request meets. They travel into the Bento: no torch, no MLflow."""
