"""Search: one engine, with scorers and constraints as small parts that are passed in."""
