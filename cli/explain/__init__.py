"""`nodrop explain`: inputs, the evaluation by the service's own code, and the printed result."""
