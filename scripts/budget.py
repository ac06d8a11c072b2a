"""Size budget: files ≤ 300 lines, functions ≤ 60, nine functions of ten ≤ 40; exit 1 otherwise."""

import ast
import sys
from pathlib import Path

FILE, FUNCTION, NINE_OF_TEN = 300, 60, 40


def functions(path: Path) -> list[tuple[int, str]]:
    """Length in lines (signature and docstring included) and place of each function in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def main(root: str) -> int:
    """Print every excess under `root` and return the exit code."""
    files = sorted(Path(root).rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    found = sorted(item for path in files for item in functions(path))
    lengths = [length for length, _ in found]
    p90 = lengths[int(0.9 * (len(lengths) - 1))] if lengths else 0

    excess = [f"{path}: {n} lines, at most {FILE}" for path, n in lines.items() if n > FILE]
    excess += [f"{place}: {n} lines, at most {FUNCTION}" for n, place in found if n > FUNCTION]
    if p90 > NINE_OF_TEN:
        excess.append(f"function length, 90th percentile: {p90} lines, at most {NINE_OF_TEN}")
    print("\n".join(excess), end="\n" if excess else "")
    print(
        f"size: {len(files)} files, longest {max(lines.values(), default=0)} lines;"
        f" {len(found)} functions, longest {max(lengths, default=0)}, p90 {p90}"
    )
    return 1 if excess else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
