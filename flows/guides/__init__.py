"""Instructions for each reason of a case, in one place for the console, the command line, the API and the docs."""
