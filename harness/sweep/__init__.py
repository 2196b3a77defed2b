"""Removes what runs left behind in a cluster or an account, found by marks alone."""
