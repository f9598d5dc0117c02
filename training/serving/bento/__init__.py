"""The only room that reaches into private names of BentoML and OpenTelemetry."""
