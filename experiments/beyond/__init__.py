"""What the study note leads to: networks, momentum, the limits of the learning rate."""
