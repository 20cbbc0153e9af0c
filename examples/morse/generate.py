"""Made-up radio: short words and call signs in Morse code, keyed by unsteady hands, through fading and noise.

In: a seed and sizes. Out: for each split an archive of WAV files (`train.tar`, 8 kHz, 16 bit) and a manifest (`train.jsonl`: audio, text,
seconds, speed, snr_db), the same for the same seed. No text of one split occurs in another, so that what is scored was never heard.

    python examples/morse/generate.py work/morse --seed 1
"""

import argparse
import io
import json
import tarfile
import wave
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 8_000
CODE = {
    "A": ".-", "B": "-...", "C": "-.-.", "D": "-..", "E": ".", "F": "..-.", "G": "--.", "H": "....", "I": "..", "J": ".---", "K": "-.-",
    "L": ".-..", "M": "--", "N": "-.", "O": "---", "P": ".--.", "Q": "--.-", "R": ".-.", "S": "...", "T": "-", "U": "..-", "V": "...-",
    "W": ".--", "X": "-..-", "Y": "-.--", "Z": "--..", "0": "-----", "1": ".----", "2": "..---", "3": "...--", "4": "....-", "5": ".....",
    "6": "-....", "7": "--...", "8": "---..", "9": "----.",
}  # fmt: skip
# Letters as often as in English, where the short signs are: what is frequent is learned first, and helps with the rest.
OFTEN = "EEEEEEEEEEEETTTTTTTTTAAAAAAAAOOOOOOOIIIIIIINNNNNNNSSSSSSHHHHHHRRRRRRDDDDLLLLCCCUUUMMMWWFFGGYYPPBVK"
CONSONANTS, VOWELS = [letter for letter in OFTEN if letter not in "AEIOU"], [letter for letter in OFTEN if letter in "AEIOU"]
SPLITS = ("train", "valid", "test")
SLOWEST, FASTEST = 18, 32  # words per minute; one dot lasts 1.2 s / speed (the word PARIS has 50 dots)
EDGE_SECONDS = 0.005


def text(draw: np.random.Generator) -> str:
    """A few letters (`TEN`), a word that could be one (`TORINA`), or a call sign (`DL3KX`)."""
    kind = draw.random()
    if kind < 0.6:
        return "".join(draw.choice(list(OFTEN), draw.integers(1, 4)))
    if kind < 0.85:
        return "".join(letter for _ in range(draw.integers(1, 4)) for letter in (draw.choice(CONSONANTS), draw.choice(VOWELS)))
    letters = [letter for letter in CODE if letter.isalpha()]
    return "".join((*draw.choice(letters, draw.integers(1, 3)), str(draw.integers(10)), *draw.choice(letters, draw.integers(1, 3))))


def split_of(word: str) -> str:
    """The split that a text belongs to: four fifths of all texts are for training."""
    return ("valid", "test", *["train"] * 8)[zlib.crc32(word.encode()) % 10]


def keying(word: str, draw: np.random.Generator, *, dot_seconds: float) -> NDArray[np.float64]:
    """(K,) seconds of key down, up, down, ...: dots 1, dashes 3, gaps 1 and 3 units, each a little off."""
    units: list[float] = []
    for letter in word:
        for sign in CODE[letter]:
            units += [1.0 if sign == "." else 3.0, 1.0]
        units[-1] = 3.0
    jitter = draw.uniform(0.0, 0.12)
    return np.asarray(dot_seconds * np.array(units[:-1]) * np.exp(jitter * draw.normal(size=len(units) - 1)))


def sound(word: str, draw: np.random.Generator, *, speed: float, snr_db: float) -> NDArray[np.float32]:
    """(N,) what a receiver would play. snr_db: of the key-down tone, over the whole band."""
    durations = keying(word, draw, dot_seconds=1.2 / speed)
    before, after = draw.uniform(0.05, 0.4, 2)
    ends = before + np.concatenate([[0.0], durations.cumsum()])
    time = np.arange(round((ends[-1] + after) * RATE_HZ)) / RATE_HZ
    down = (np.searchsorted(ends, time, side="right") % 2).astype(np.float64)
    edge = np.hanning(round(EDGE_SECONDS * RATE_HZ) + 2)
    envelope = np.convolve(down, edge / edge.sum(), mode="same")
    fading = 1 - draw.uniform(0, 0.7) * (0.5 + 0.5 * np.sin(2 * np.pi * (draw.uniform(0.1, 0.8) * time + draw.random())))
    pitch = draw.uniform(500, 900) + draw.uniform(-15, 15) * time
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE_HZ)
    noise = draw.normal(size=len(time)) * np.sqrt(0.5) * 10 ** (-snr_db / 20)
    mixed = envelope * fading * tone + noise
    return np.asarray(0.8 * draw.uniform(0.3, 1.0) * mixed / np.abs(mixed).max(), dtype=np.float32)


def wav_bytes(samples: NDArray[np.float32]) -> bytes:
    """A WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def generate(folder: Path, *, seed: int, sizes: dict[str, int]) -> dict[str, Path]:
    """Write an archive and a manifest per split. -> paths of the manifests."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {split: folder / f"{split}.jsonl" for split in sizes}
    for split, path in paths.items():
        draw = np.random.default_rng([seed, SPLITS.index(split)])
        lines = []
        with tarfile.open(path.with_suffix(".tar"), "w") as archive:
            while len(lines) < sizes[split]:
                word = text(draw)
                if split_of(word) != split:
                    continue
                speed, snr_db = float(draw.uniform(SLOWEST, FASTEST)), float(draw.uniform(3, 20))
                samples = sound(word, draw, speed=speed, snr_db=snr_db)
                content, entry = wav_bytes(samples), tarfile.TarInfo(f"{split}/{len(lines):05d}.wav")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
                known = {"seconds": round(len(samples) / RATE_HZ, 3), "speed": round(speed, 1), "snr_db": round(snr_db, 1)}
                lines.append(json.dumps({"audio": entry.name, "text": word, **known}))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write Morse code as sound: train, valid and test, each a .tar of WAV files and a .jsonl.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--valid", type=int, default=100)
    parser.add_argument("--test", type=int, default=300)
    words = parser.parse_args()
    sizes = {"train": words.train, "valid": words.valid, "test": words.test}
    for split, path in generate(words.folder, seed=words.seed, sizes=sizes).items():
        print(f"{path}: {sizes[split]:,} recordings in {path.with_suffix('.tar')}")


if __name__ == "__main__":
    main()
