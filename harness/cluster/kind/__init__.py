"""The kind provider: Kubernetes clusters whose nodes are containers of a Docker engine."""
