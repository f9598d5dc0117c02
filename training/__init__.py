"""From prepared pictures to a registered, promoted model; see training/README.md."""
