"""Kubernetes manifests, and the tool that rolls the service out."""
