"""What is under test: agent and webhook, ours or somebody else's."""
