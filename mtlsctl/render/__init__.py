"""Recipes, material and runtime folders become the files of a release. Text only: no host, no key, no clock."""
