"""What the experiments look at: points, digits, colours, and the numbers of the note."""
