"""`nodrop config`: the checks of settings and stores."""
