"""A roll-out onto Kubernetes, step by step: each module is one concept, k8s/cluster.py puts them in order."""
