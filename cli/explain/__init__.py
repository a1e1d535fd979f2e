"""`nodrop explain`: inputs and the printed result. The evaluation is that of `flows.explanation`."""
