"""`nodrop accounts`: accounts at channels, their files, checks and key rotation."""
