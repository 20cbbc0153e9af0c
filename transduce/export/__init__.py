"""Models for other engines: how a model is written for one, whether it answers the same there, and how it is asked."""
