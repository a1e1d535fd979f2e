"""The story of an order in words, for whoever shows it: the console, the API and the commands."""
