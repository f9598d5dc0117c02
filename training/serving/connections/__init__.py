"""Connections: protocol limits, sharing among workers, draining."""
