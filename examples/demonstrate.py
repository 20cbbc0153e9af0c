"""What the demos share: data made, a model trained, its test scored and shown, and an exit code that says whether it was good enough.

In: a `Demo`, from a demo.py beside whose config.yaml it stands. Out: work/NAME, runs/NAME, a picture and one line that says how it went.

Decision to question: training and scoring run as the commands that a reader would type, each in its own process.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Demo:
    """One demo. generate: from folder, seed and sizes to the file of each split, as in generate.py."""

    name: str
    about: str
    generate: Callable[..., Mapping[str, Path]]
    examples: str
    """What there is to learn from: the name of the option that says how many."""
    sizes: Mapping[str, int]
    """Examples of train (unless the option says otherwise), valid and test."""
    intro: str
    """Printed first, with {count} examples."""
    show: Callable[[Path, Path], float]
    """From the test file and the place of the picture to the figure that counts; prints what it likes."""
    outcome: str
    """Printed last, with {value} and {need}."""
    need: float
    at_most: bool = False
    """The figure may not exceed `need`; otherwise it must reach it."""
    picture: str = "picture.png"
    next: tuple[str, ...] = ()
    """Commands to try."""

    @property
    def config(self) -> str:
        """The configuration, relative to the repository."""
        return f"examples/{self.name}/config.yaml"

    @property
    def work(self) -> Path:
        """Where the data goes."""
        return Path("work") / self.name

    @property
    def run(self) -> Path:
        """Where the model goes."""
        return Path("runs") / self.name


def demonstrate(demo: Demo) -> None:
    """Generate, train, score, show. Exits with 1 where the figure is not what was asked for, with a command's own code where it fails."""
    parser = argparse.ArgumentParser(description=demo.about)
    parser.add_argument("settings", nargs="*", metavar="A.B=C", help=f"settings on top of {demo.config}")
    parser.add_argument(f"--{demo.examples}", dest="count", type=int, default=demo.sizes["train"], help="how many to learn from")
    parser.add_argument("--need", type=float, default=demo.need, help="the figure without which the demo fails")
    parser.add_argument("--picture", type=Path, default=demo.run / demo.picture)
    words = parser.parse_args()

    print(demo.intro.format(count=f"{words.count:,}"))
    paths = demo.generate(demo.work, seed=1, sizes={**demo.sizes, "train": words.count})
    if demo.run.exists():
        print(f"{demo.run} holds an earlier run of this demo; it is removed.")
        shutil.rmtree(demo.run)
    started = time.monotonic()
    transduce("train", demo.config, *words.settings)
    minutes = (time.monotonic() - started) / 60
    value = demo.show(paths["test"], words.picture)
    print(f"\npicture: {words.picture}")
    print(f"{demo.outcome.format(value=value, need=words.need)}, training: {minutes:.1f} min")
    if value > words.need if demo.at_most else value < words.need:
        sys.exit(1)
    print("\n".join(["\nTry next:", *(f"  {command}" for command in demo.next)]))


def transduce(*words: str) -> None:
    """Run a command, printed first. Exits with its exit code when it fails."""
    print(f"\n$ transduce {' '.join(words)}\n", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], check=False).returncode
    if code != 0:
        sys.exit(code)
