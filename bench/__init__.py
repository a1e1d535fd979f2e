"""What nodrop costs and how fast it is: measured on the real processes, as JSON with the facts of the machine."""
