"""One thread per test process, so that runs are alike and two processes share two cores fairly."""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)

# A shell that starts the tests in the background makes them ignore Ctrl-C, and their children inherit that. A handler of our
# own undoes it: a program started from here gets the default again, so that the tests of SIGINT test SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
