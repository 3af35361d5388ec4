"""Gives torch's operators to the emulated GPU when a process imports torch."""

import importlib.util
import os
import sys


class _Finder:
    """Of torch, once."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(_Finder)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.ops.load_library(os.environ["EMULATED_OPERATORS"])

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
