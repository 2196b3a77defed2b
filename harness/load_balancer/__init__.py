"""The data plane of the lab's load balancers: runs in a pod on a node, beside nginx. Standard library only."""
