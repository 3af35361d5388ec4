"""Builds bluefog_pg._C and _C_cuda with CMake; all metadata is in pyproject.toml.

    pip install --no-build-isolation .

CMAKE_ARGS is handed on to cmake, e.g. CMAKE_ARGS="-DCMAKE_BUILD_TYPE=RelWithDebInfo", and
CMAKE_BUILD_PARALLEL_LEVEL limits how many files are compiled at once. The build tree stays in
build/torch-<version>-py<xy>: a rebuild compiles what changed, and builds for several versions of
torch live side by side.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# torch is imported by the programs started below. It must not load an installed bluefog_pg on the
# way: a broken one could then not be replaced.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"


def torch_version() -> str:
    """Returns the version of the torch to build for, or ends with a sentence if there is none."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        # Asked by an isolated build before torch could be there, and by sdist; neither compiles.
        if {"egg_info", "sdist"} & set(sys.argv):
            return "none"
        sys.exit(
            "torch cannot be imported in this build: bluefog_pg is compiled against the torch it "
            "will run with, so install torch first, then run "
            "`pip install --no-build-isolation .` (build isolation hides the installed torch)."
        )


TREE = ROOT / "build" / f"torch-{torch_version()}-py{sys.version_info[0]}{sys.version_info[1]}"

import setuptools  # noqa: E402  (said after the check for torch, which is missed more often)
from setuptools.command.build_ext import build_ext  # noqa: E402
from setuptools.command.build_py import build_py  # noqa: E402

if int(setuptools.__version__.split(".")[0]) < 77:
    sys.exit(
        f"setuptools {setuptools.__version__} cannot read pyproject.toml's license field: "
        "pip install 'setuptools>=77,<82'"
    )


def find_tool(name: str) -> str:
    """Returns the path of a build tool, from PATH or from the running Python's environment."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])
    tool = shutil.which(name, path=path)
    if tool is None:
        sys.exit(f"{name} is missing: pip install {name}")
    return tool


class PythonFiles(build_py):
    """Starts from an empty package folder, so that no module deleted since is packed again."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib, "bluefog_pg"), ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configures and builds with CMake, then copies the modules and _build_info.py."""

    def build_extension(self, ext: setuptools.Extension) -> None:
        cmake = find_tool("cmake")
        configure = [
            *(cmake, "-S", str(ROOT), "-B", str(TREE), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        for command in (configure, [cmake, "--build", str(TREE), "--target", "bluefog_modules"]):
            if subprocess.call(command) != 0:
                sys.exit(f"Building bluefog_pg failed in: {shlex.join(command)}")
        module = Path(self.get_ext_fullpath(ext.name))
        module.parent.mkdir(parents=True, exist_ok=True)
        built = TREE / "bluefog_pg"
        shutil.copy2(built / module.name, module)
        # setuptools knows of _C alone, and copies no other file to where an editable package is.
        package = ROOT / "bluefog_pg" if self.editable_mode else module.parent
        for old in package.glob("_C_cuda.*.so"):  # of a build with CUDA
            old.unlink()
        for file in (built / "_build_info.py", *built.glob("_C_cuda.*.so")):
            shutil.copy2(file, package)


TREE.mkdir(parents=True, exist_ok=True)
setuptools.setup(
    ext_modules=[setuptools.Extension("bluefog_pg._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": PythonFiles},
    # Everything that setuptools writes goes into the build tree too, not beside the sources.
    options={"build": {"build_base": str(TREE)}, "egg_info": {"egg_base": str(TREE)}},
)
