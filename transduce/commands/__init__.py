"""What the verbs of the command line do, one file each; `cli.py` imports them when they are called."""
