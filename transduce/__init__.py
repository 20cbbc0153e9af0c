"""transduce: sequence-to-sequence models on your own pairs."""

__version__ = "0.1.0"
