"""Other toolkits, each in an environment of its own: `python benchmarks/peers.py --folder work/peers huggingface ctranslate2`.

In: names and a folder. Out: FOLDER/NAME, a virtual environment in which the benchmarks start that toolkit, or a message that says
which command failed. torch is installed first and held by a constraint, so that every side computes with the same one.

The decision to question: toolkits that forbid today's torch in their requirements are installed without them, and what they
import is listed here by hand. They then run as they are: nothing of their code is changed.
"""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
DEFAULT_FOLDER = Path("work/peers")
LIST_VERSIONS = """
import json, sys
from importlib import metadata
installed = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
print(json.dumps({name: installed[name.lower()] for name in sys.argv[1:] if name.lower() in installed}))
"""


@dataclass(frozen=True)
class Peer:
    """How one toolkit is installed.

    package: with its version. bare: without its own requirements. needs: what is installed beside it, words. empty_modules: modules
    that it imports and, for what is measured here, never uses; an empty file stands for each.
    check: what must be importable afterwards.
    """

    package: str
    check: str
    bare: bool = False
    torch: bool = True
    needs: str = ""
    empty_modules: tuple[str, ...] = ()


PEERS = {
    "huggingface": Peer("transformers==5.23.0", "transformers", needs="numpy"),
    "ctranslate2": Peer("ctranslate2==4.8.5", "ctranslate2", torch=False, needs="numpy"),
    # Pins an old protobuf; asks for the sentencepiece of its time.
    "joeynmt": Peer(
        "joeynmt==2.3.0",
        "joeynmt.training",
        bare=True,
        needs="numpy pyyaml tensorboard sacrebleu subword-nmt sentencepiece==0.1.99 importlib_metadata packaging datasets matplotlib "
        "seaborn pandas setuptools<81",
    ),
    # Asks for a torch below 2.3; imports spacy and fasttext for transforms that are not used here.
    "opennmt": Peer(
        "OpenNMT-py==3.5.1",
        "onmt.bin.train",
        bare=True,
        needs="numpy pyyaml configargparse tensorboard sacrebleu ctranslate2==4.8.5 pyonmttok rapidfuzz waitress flask sentencepiece six "
        "setuptools<81 pyahocorasick",
        empty_modules=("fasttext", "spacy"),
    ),
    # Asks for an older sentencepiece.
    "eole": Peer(
        "eole==0.6.4",
        "eole.bin.run.train",
        bare=True,
        needs="numpy pyyaml configargparse tensorboard sacrebleu pyonmttok rapidfuzz sentencepiece pydantic safetensors huggingface_hub "
        "fastapi uvicorn aiohttp requests rich six setuptools<81 tokenizers",
    ),
}


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of a peer's environment. Raises FileNotFoundError, with the command that makes it, where there is none."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} is not there: python benchmarks/peers.py --folder {folder} {name}")
    return python.absolute()


def install(name: str, folder: Path) -> Path:
    """Make the environment of a peer, or complete it -> its interpreter. Raises CalledProcessError when a step fails."""
    peer, place = PEERS[name], folder / name
    venv.create(place, with_pip=True, symlinks=True)
    held = place / "constraints.txt"
    held.write_text(f"{TORCH}\n", encoding="utf-8")
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(held)]
    steps = [[TORCH]] if peer.torch else []
    steps += [peer.needs.split()] if peer.needs else []
    steps += [["--no-deps", peer.package] if peer.bare else [peer.package]]
    for step in steps:
        subprocess.run([*pip, *step], check=True)
    for module in peer.empty_modules:
        (packages_of(place) / f"{module}.py").write_text(
            '"""Stands for a package that is imported and not used here."""\n', encoding="utf-8"
        )
    subprocess.run([str(place / "bin" / "python"), "-W", "ignore", "-c", f"import {peer.check}"], check=True)
    return python_of(folder, name)


def packages_of(place: Path) -> Path:
    """Where an environment keeps its packages."""
    return next((place / "lib").glob("python3.*")) / "site-packages"


def versions_of(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Installed versions in an environment; packages that are not there are left out."""
    answer = subprocess.run([str(python), "-c", LIST_VERSIONS, *packages], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def installed(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """The interpreters of those that are there; the others are named on stderr."""
    pythons = {}
    for name in names:
        try:
            pythons[name] = python_of(folder, name)
        except FileNotFoundError as missing:
            print(f"left out: {name}: {missing}", file=sys.stderr)
    return pythons


def told_versions(name: str, python: Path) -> dict[str, str]:
    """Those of a toolkit and of its torch."""
    return versions_of(python, [PEERS[name].package.partition("==")[0], "torch"])


def version_words(pythons: Mapping[str, Path]) -> dict[str, str]:
    """`told_versions` of each, for people."""
    return {name: " ".join(told_versions(name, python).values()) for name, python in pythons.items()}


def main() -> int:
    """Exit code 1 if one of them could not be installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(PEERS)}; none = all")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the environments go (about 1.5 GB each)")
    words = parser.parse_args()
    if unknown := sorted(set(words.names) - set(PEERS)):
        parser.error(f"{unknown[0]} is not known: {', '.join(PEERS)}")
    failed = []
    for name in words.names or PEERS:
        try:
            print(f"{name:<12} {install(name, words.folder)}", flush=True)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name:<12} failed: {' '.join(error.cmd)}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
