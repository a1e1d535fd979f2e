"""`nodrop …`: what an operator types, the demo, and the servers it brings along."""
