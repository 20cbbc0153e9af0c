"""Any benchmark as on a processor with AVX2 alone: `python benchmarks/as_avx2.py python benchmarks/train_speed.py ...`.

In: a command. Out: what it prints, with AVX512 and VNNI hidden from it and all that it starts: from torch and its libraries, CTranslate2
and numba by their own settings, and from whoever reads /proc/cpuinfo by another file in its place (Linux, as root).

The decision to question: what remains is this processor's speed at AVX2, and its caches, not another processor's. So ratios of sides
mean more than figures.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HIDDEN = re.compile(r" (avx512\w*|avx_vnni|avx10\w*|amx_\w+)\b")
SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "CT2_FORCE_CPU_ISA": "AVX2",
}
HOOK = '''"""Hides from numba what its compiler knows beyond AVX2."""
import sys
from importlib.machinery import PathFinder


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "llvmlite.binding.targets":
            return None
        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            known = module.get_host_cpu_features

            def without():
                found = known()
                found.update({name: False for name in found if name.startswith(("avx512", "avx10", "avxvnni", "amx"))})
                return found

            module.get_host_cpu_features = without

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
'''


def main() -> int:
    """The exit code of the command; 2 where there is none, or it is not possible to hide anything."""
    if len(sys.argv) < 2:
        print(f"which command?\n\n{__doc__}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder, "cpuinfo")
        seen.write_text(HIDDEN.sub("", Path("/proc/cpuinfo").read_text(encoding="utf-8")), encoding="utf-8")
        Path(folder, "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        found = os.pathsep.join(part for part in (folder, os.environ.get("PYTHONPATH")) if part)
        hidden = ("unshare", "--mount", "sh", "-c", f'mount --bind {seen} /proc/cpuinfo && exec "$@"', "sh")
        if subprocess.run([*hidden, "true"], capture_output=True).returncode:
            print("/proc/cpuinfo cannot be hidden here: that needs Linux and root", file=sys.stderr)
            return 2
        return subprocess.run([*hidden, *sys.argv[1:]], env={**os.environ, **SETTINGS, "PYTHONPATH": found}).returncode


if __name__ == "__main__":
    sys.exit(main())
