"""A processor with AVX512 runs the loops for AVX2 too: the tests of loops once more, without what it has beyond AVX2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transduce.model.blocked import has_blocks, has_wide_vectors

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
NAMES = "avx2", "blocked", "whole", "ranking", "int8", "packed", "search_transformer"


@pytest.mark.skipif("TESTED_VECTORS" in os.environ, reason="runs in the test itself")
@pytest.mark.skipif(not has_wide_vectors(), reason="needs numba and AVX512; without it the tests themselves are those of AVX2")
def test_loops_for_avx2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import as_avx2

    (tmp_path / "sitecustomize.py").write_text(as_avx2.HOOK, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / f"test_{name}.py") for name in NAMES)]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(tmp_path), "TESTED_VECTORS": "avx2"}, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.skipif(os.environ.get("TESTED_VECTORS") != "avx2", reason="runs inside of the test before")
def test_there_are_loops_for_avx2() -> None:
    found = [has_blocks(kind) for kind in (torch.float32, torch.int16, torch.int8, torch.bfloat16)]
    assert not has_wide_vectors() and found in ([True, True, False, False], [False] * 4)
