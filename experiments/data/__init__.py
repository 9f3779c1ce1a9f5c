"""What the experiments look at: points, digits, colours, and the numbers of the note."""

THE_NOTE = (
    "The note is a study note in Chinese on the neuron, back-propagation, gradient descent and "
    "loss functions. It follows chapters 1 to 3 of ai-edu, Microsoft's open course on AI, and "
    "posts on Jianshu (descent on 20 points) and CSDN (losses of a classifier). Its text is not "
    "part of this project; its numbers are, in experiments/data/numbers.json."
)
