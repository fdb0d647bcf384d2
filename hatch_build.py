"""What an installer does not know about this package: the generated contract and the examples.

`tulle/wire` is generated from `proto/` whenever the package is built or installed for editing, so that nobody
needs a system protoc and no generated file is committed; the same goes for examples with a `proto` folder. The
examples travel inside the package, because `tulle demo` runs one of them from an installed wheel too.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface[Any]):
    """Called by hatchling before it collects files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and take the examples along unless the checkout itself is installed."""
        root = Path(self.root)
        generate(root)
        if version == "editable":
            return
        for file in sorted((root / "examples").rglob("*")):
            relative = file.relative_to(root)
            if file.is_file() and not {"tests", "__pycache__"} & set(relative.parts):
                build_data["force_include"][str(file)] = f"tulle/{relative}"


def generate(root: Path) -> None:
    """Generate Python code and types from every contract."""
    compile_files(root / "proto", root, grpc=True)
    for contract in sorted(root.glob("examples/*/proto")):
        compile_files(contract, contract.parent, grpc=False)


def compile_files(contract: Path, target: Path, *, grpc: bool) -> None:
    """Generate Python code from all `.proto` files below a folder."""
    import grpc_tools
    from grpc_tools import protoc

    files = sorted(str(file) for file in contract.rglob("*.proto"))
    include = Path(grpc_tools.__file__).parent / "_proto"
    kinds = ["python", "pyi", "grpc_python"] if grpc else ["python", "pyi"]
    outputs = [f"--{kind}_out={target}" for kind in kinds]
    if protoc.main(["protoc", f"-I{contract}", f"-I{include}", *outputs, *files]) != 0:
        raise RuntimeError(f"{contract} could not be compiled")


if __name__ == "__main__":
    generate(Path(__file__).parent)
