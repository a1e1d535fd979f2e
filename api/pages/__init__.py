"""The buyer's order page: HTML, texts, static files and the stream of changes."""
