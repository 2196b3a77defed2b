"""Real Kubernetes as plain processes in namespaces of their own: no Docker, no registry."""
