"""Broken webhooks, a module for each thing that breaks: being here registers them.

A seam is overridden where it is looked up: a function that a module has imported is replaced in that module.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
