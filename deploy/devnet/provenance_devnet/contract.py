"""Compile each contract into the artifact that lies beside its source, or check that it still fits.

For developers, in a checkout: ``python -m provenance_devnet.contract [--check]``. The compiler is
the npm package ``solc``, pinned in ``deploy/devnet/solc/`` and installed into ``.devnet/opt/solc``
where it is missing. Compiling is deterministic: the same source, compiler and settings give the
same bytes on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from provenance.errors import IntegrityError, ProvenanceError, ServerMissingError

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "provenance" / "chains" / "ethereum" / "contracts").glob("*.sol"))
"""Each holds the contract that it is named after."""
# Paris: no PUSH0, so that chains which never took the Shanghai fork run it as well.
SETTINGS: dict[str, Any] = {
    "evmVersion": "paris",
    "optimizer": {"enabled": True, "runs": 200},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}
_DEADLINE_S = 120.0


def compiler(root: Path = ROOT) -> Path:
    """Path of ``solc.js``; installed with ``npm ci`` where it is missing.

    Raises:
        ServerMissingError: No node or npm, or the install failed; says how to get it.
    """
    home = root / ".devnet" / "opt" / "solc"
    script = home / "node_modules" / "solc" / "solc.js"
    if script.is_file():
        return script
    pinned = root / "deploy" / "devnet" / "solc"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise ServerMissingError(
            f"node and npm are not installed; install Node.js, then: npm ci --prefix {home} "
            f"(with the package files of {pinned})"
        )
    home.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(pinned / name, home / name)
    try:
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerMissingError(f"npm ci in {home} took over {_DEADLINE_S:.0f} s") from error
    if done.returncode or not script.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ServerMissingError(f"npm ci in {home} failed: {' '.join(said) or done.returncode}")
    return script


def compile_artifact(solc: Path, name: str, source: str) -> dict[str, Any]:
    """The artifact of the source of a contract: ABI, both bytecodes, compiler, settings, source
    hash.

    Raises:
        ServerMissingError: node does not run the compiler.
        IntegrityError: The compiler reports an error or a warning.
    """
    request = {
        "language": "Solidity",
        "sources": {f"{name}.sol": {"content": source}},
        "settings": SETTINGS,
    }
    output = json.loads(_node([str(solc), "--standard-json"], json.dumps(request)))
    complaints = [str(each.get("formattedMessage", each)) for each in output.get("errors", [])]
    if complaints:
        raise IntegrityError(f"{name}.sol: {complaints[0].strip()}")
    contract = output["contracts"][f"{name}.sol"][name]
    return {
        "contractName": name,
        "sourceName": f"{name}.sol",
        "sourceSha256": hashlib.sha256(source.encode()).hexdigest(),
        "compiler": f"solc {_node([str(solc), '--version'], '').strip()}",
        "settings": SETTINGS,
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
    }


def _node(argv: list[str], stdin: str) -> str:
    node = shutil.which("node")
    if node is None:
        raise ServerMissingError("node is not installed; install Node.js 18 or newer")
    try:
        done = subprocess.run(
            [node, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=True,
            env={**os.environ, "NODE_OPTIONS": ""},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerMissingError(f"node does not run {argv[0]}: {error}") from error
    # The compiler's loader may print a line about SMT solvers before the answer.
    lines = [line for line in done.stdout.splitlines() if not line.startswith(">>>")]
    return "\n".join(lines)


def render(artifact: dict[str, Any]) -> str:
    """The artifact as the text that is committed."""
    return json.dumps(artifact, indent=2, sort_keys=True) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the artifacts; with ``--check``, compare instead: 0 the same, 1 one is different."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--folder", type=Path, default=SOURCES[0].parent, help="of the artifacts")
    options = parser.parse_args(argv)
    differ = 0
    try:
        for source in SOURCES:
            name, path = source.stem, options.folder / f"{source.stem}.json"
            text = render(compile_artifact(compiler(), name, source.read_text("utf-8")))
            if not options.check:
                path.write_text(text, "utf-8")
                print(f"wrote {path}")  # noqa: T201  what the command says
            elif path.is_file() and path.read_text("utf-8") == text:
                print(f"{path} fits {source.name}")  # noqa: T201  what the command says
            else:
                differ = 1
                problem = f"{path} does not fit {source.name}: run without --check"
                print(problem, file=sys.stderr)  # noqa: T201  what the command says
    except ProvenanceError as error:
        print(error, file=sys.stderr)  # noqa: T201  what the command says
        return error.exit_code
    return differ


if __name__ == "__main__":
    sys.exit(main())
