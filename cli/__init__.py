"""`nodrop …`: the commands that an operator types."""
