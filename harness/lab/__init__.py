"""The lab: AWS and clusters on one private network, raised and removed as a whole."""
