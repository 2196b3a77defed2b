"""Broken webhooks, a module for each thing that breaks: being in a module here registers them.

A seam is overridden where it is looked up: a function that a module has imported is replaced in that module.
"""
